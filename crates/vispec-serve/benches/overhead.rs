//! Overhead of the server: asks the built-in pair the same question through
//! `vispec_core::generate`, through the crate `vispec`, and over HTTP, in turn.
//!
//! `cargo bench --bench overhead`; an optional argument is the number of rounds.
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::json;
use vispec::core::{GenerationConfig, GenerationObserver, MatchPicks, TokenId, generate};
use vispec::{
    AnswerCycle, AnswerPrompt, AnswerRequest, DecodedImage, Engine, EngineSettings, ImageInput,
    ImageOptions, LoadOptions, Messages, SpecialText, TreeChoice, TreeShape,
};
use vispec_processor::Detokenizer;
use vispec_serve::{EngineModel, ServeOptions, serve};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
const QUESTION: &str = "Describe the image in detail.";
const ROUNDS: usize = 100;
/// Answers of one token show the cost of a request, longer ones that of a token.
const LENGTHS: [usize; 2] = [1, 256];

/// How the question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Generate,
    Engine,
    Whole,
    Streamed,
}

impl Way {
    const ALL: [Self; 4] = [Self::Generate, Self::Engine, Self::Whole, Self::Streamed];

    fn name(self) -> &'static str {
        match self {
            Self::Generate => "vispec_core::generate",
            Self::Engine => "vispec::Engine::answer",
            Self::Whole => "HTTP, whole",
            Self::Streamed => "HTTP, streamed",
        }
    }
}

/// The models, and a server that uses the same ones.
struct Bench {
    engine: Engine,
    address: SocketAddr,
    image: Vec<u8>,
}

/// Times of an answer: in total, and to its first text.
#[derive(Debug, Clone, Copy)]
struct Took {
    total: Duration,
    first: Duration,
    tokens: usize,
}

impl Bench {
    fn start() -> Self {
        let place = |dir: &str| Path::new(FIXTURES).join(dir).display().to_string();
        let options = LoadOptions {
            tree: TreeChoice::Sized(TreeShape::default().into()),
            // Kept data would make the answers of some ways faster.
            settings: EngineSettings {
                conversation_memory: 0,
                image_memory: 0,
                suffix_memory: 0,
                ..EngineSettings::default()
            },
            ..LoadOptions::default()
        };
        let draft = place("drafts/qwen-scenes-q2");
        let engine = Engine::load(&place("models/qwen-scenes"), Some(&draft), options).unwrap();
        let model = EngineModel {
            id: "demo".to_owned(),
            engine: engine.clone(),
        };
        let (sender, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                let options = ServeOptions::default();
                let forever = std::future::pending();
                serve(listener, Arc::new(model), options, forever)
                    .await
                    .unwrap();
            });
        });
        let image = Path::new(FIXTURES).join("cases/qwen-tied/q4-img-large/image_0.png");
        Self {
            engine,
            address: address.recv().unwrap(),
            image: std::fs::read(image).unwrap(),
        }
    }

    fn ask(&self, way: Way, length: usize) -> Took {
        match way {
            Way::Generate => self.generate(length),
            Way::Engine => self.answer(length),
            Way::Whole => self.request(length, false),
            Way::Streamed => self.request(length, true),
        }
    }

    fn messages() -> Messages {
        Messages::from_prompt(None, QUESTION, 1)
    }

    fn generate(&self, length: usize) -> Took {
        let started = Instant::now();
        let image = DecodedImage::from_bytes(&self.image, &ImageOptions::default()).unwrap();
        let models = self.engine.models();
        let (prompt, _) = models.encode(&Self::messages(), &[image]).unwrap();
        let drafting = self.engine.drafting();
        let drafter = models.drafter(drafting.method, drafting.tree.clone());
        let config = GenerationConfig {
            max_new_tokens: length,
            stop_tokens: Vec::from_iter(models.processor().eos_token_ids().iter().copied()),
        };
        let rule = MatchPicks::greedy();
        let (target, drafter) = (models.target(), drafter.unwrap());
        let detokenizer = Detokenizer::new(models.processor().tokenizer(), SpecialText::Skip);
        let mut shown = Shown {
            detokenizer,
            text: String::new(),
        };
        let answer = generate(target, drafter, rule, &prompt, config, &mut shown).unwrap();
        let total = started.elapsed();
        Took {
            total,
            first: total,
            tokens: answer.tokens.len(),
        }
    }

    fn answer(&self, length: usize) -> Took {
        let request = AnswerRequest {
            max_new_tokens: length,
            ..AnswerRequest::new(AnswerPrompt::Chat {
                messages: Self::messages(),
                images: vec![ImageInput::File(self.image.clone())],
                videos: Vec::new(),
            })
        };
        let started = Instant::now();
        let (mut first, mut text) = (None, String::new());
        let mut tell = |cycle: AnswerCycle| {
            first.get_or_insert_with(|| started.elapsed());
            text.push_str(&cycle.text());
            ControlFlow::Continue(())
        };
        let answered = self.engine.answer(request, &mut tell).unwrap();
        let total = started.elapsed();
        Took {
            total,
            first: first.unwrap_or(total),
            tokens: answered.completion_tokens,
        }
    }

    fn request(&self, length: usize, stream: bool) -> Took {
        let started = Instant::now();
        let image = base64::engine::general_purpose::STANDARD.encode(&self.image);
        let url = format!("data:image/png;base64,{image}");
        let content = json!([
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": QUESTION},
        ]);
        let body = json!({
            "messages": [{"role": "user", "content": content}],
            "max_tokens": length,
            "stream": stream,
        });
        let body = body.to_string();
        let mut connection = TcpStream::connect(self.address).unwrap();
        connection.set_nodelay(true).unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all((head + &body).as_bytes()).unwrap();
        let (mut reply, mut first) = (Vec::new(), None);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = connection.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            reply.extend_from_slice(&buffer[..read]);
            if first.is_none() && has_text(&reply) {
                first = Some(started.elapsed());
            }
        }
        let total = started.elapsed();
        let end: &[u8] = if stream { b"[DONE]" } else { b"\"usage\"" };
        assert!(reply.windows(end.len()).any(|part| part == end));
        Took {
            total,
            first: first.unwrap(),
            tokens: 0,
        }
    }
}

/// Returns whether the reply so far contains text; the first chunk of a stream has an empty one.
fn has_text(reply: &[u8]) -> bool {
    const KEY: &[u8] = b"\"content\":\"";
    let mut places = reply.windows(KEY.len() + 1);
    places.any(|part| part.starts_with(KEY) && !part.ends_with(b"\""))
}

/// Detokenises tokens as they arrive, like the program `generate`.
struct Shown<'a> {
    detokenizer: Detokenizer<'a>,
    text: String,
}

impl GenerationObserver for Shown<'_> {
    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        self.text += &self.detokenizer.push(tokens).unwrap();
        ControlFlow::Continue(())
    }
}

/// The median and its distribution-free 95 % confidence interval.
fn median(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let (n, last) = (values.len() as f64, values.len() - 1);
    let at = |place: f64| values[(place.max(0.0) as usize).min(last)];
    [
        n / 2.0,
        n / 2.0 - 0.98 * n.sqrt(),
        n / 2.0 + 0.98 * n.sqrt(),
    ]
    .map(at)
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let rounds: usize = rounds.unwrap_or(ROUNDS);
    let bench = Bench::start();
    let mut took = vec![[[Duration::ZERO; 3]; 4]; rounds];
    let mut tokens = [0; 2];
    // One additional round, to warm up.
    for round in 0..=rounds {
        for (l, length) in LENGTHS.into_iter().enumerate() {
            for turn in 0..Way::ALL.len() {
                let way = (round + turn) % Way::ALL.len();
                let answer = bench.ask(Way::ALL[way], length);
                if let Some(took) = round.checked_sub(1).map(|round| &mut took[round][way]) {
                    took[l] = answer.total;
                    took[2] = answer.first;
                }
                if Way::ALL[way] == Way::Generate {
                    tokens[l] = answer.tokens;
                }
            }
        }
    }
    report(&took, tokens);
}

/// Prints medians over rounds; overheads are compared within each round.
fn report(took: &[[[Duration; 3]; 4]], tokens: [usize; 2]) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let span = (tokens[1] - tokens[0]) as f64;
    let per_token = |times: &[Duration; 3]| (ms(times[1]) - ms(times[0])) / span;
    let over =
        |value: &dyn Fn(&[[Duration; 3]; 4]) -> f64| median(took.iter().map(value).collect());
    let [short, long] = tokens;
    println!(
        "{} rounds, answers of {short} and {long} tokens; medians [95 % intervals]",
        took.len()
    );
    for (way, kind) in Way::ALL.into_iter().enumerate() {
        let [request, ..] = over(&|round| ms(round[way][0]));
        let [added, least, most] = over(&|round| ms(round[way][0]) - ms(round[0][0]));
        println!("{}", kind.name());
        println!("  {request:.3} ms for {short} token, {added:+.3} [{least:+.3}, {most:+.3}]");
        let [token, ..] = over(&|round| per_token(&round[way]));
        let share = |round: &[[Duration; 3]; 4]| per_token(&round[way]) / per_token(&round[0]);
        let [share, least, most] = over(&share).map(|share| 100.0 * (share - 1.0));
        println!("  {token:.4} ms per further token, {share:+.2} % [{least:+.2}, {most:+.2}]");
        let [first, ..] = over(&|round| ms(round[way][2]));
        if kind != Way::Generate && kind != Way::Whole {
            println!("  {first:.3} ms to the first text");
        }
    }
}
