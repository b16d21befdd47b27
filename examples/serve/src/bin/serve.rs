//! Serves a target and its draft by the API of OpenAI, with a page for people.
#![allow(clippy::print_stderr, reason = "a command-line program")]

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use examples_answer::demo_pair::DemoPair;
use examples_answer::failure::Failure;
use examples_answer::flags::{DecodeFlags, ImageFlags};
use examples_answer::served::{self, Served, ServedFlags};
use indicatif::ProgressBar;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use vispec::{Engine, EngineSettings, ImageOptions, KvMemory, SchedulerOptions};
use vispec_serve::{
    ApiKey, ConnectionLimits, CorsOrigin, EngineModel, RemoteImageOptions, RequestDefaults,
    RequestLimits, ServeOptions, Strictness, Tls, serve,
};

/// Variable that may hold the key, for those who keep secrets out of files.
const KEY_VARIABLE: &str = "VISPEC_API_KEY";
/// Variable that may hold filters for the log.
const LOG_VARIABLE: &str = "RUST_LOG";
/// Largest number of pixels of an image: decoding takes up to 16 bytes for each.
const MAX_PIXELS: u64 = 16 << 20;
/// Largest number of pixels of a photo, which is scaled down while it is decoded: that takes a second
/// for each 50 million.
const MAX_PHOTO_PIXELS: u64 = 128 << 20;
const MIB: usize = 1 << 20;
/// Clients that may wait to be accepted; the system resets those that come when there is no room.
const BACKLOG: u32 = 1024;
/// Threads for connections; answers have threads of their own.
const IO_THREADS: usize = 2;

/// Serve a vision-language model by the API of OpenAI; answers are exactly those of plain decoding
///
/// The key that clients must know, if any, is in the file of --api-key-file or in the environment
/// variable VISPEC_API_KEY. Sampling flags are the defaults for requests that say nothing.
#[derive(Parser, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches on the command line are independent"
)]
struct Flags {
    #[command(flatten)]
    models: ServedFlags,
    #[command(flatten)]
    decode: DecodeFlags,
    #[command(flatten)]
    reading: ImageFlags,
    /// Name that clients see; by default that of the target
    #[arg(long, value_name = "NAME")]
    served_name: Option<String>,
    /// Address to listen on, or a name of this machine
    #[arg(long, default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Answers at a time, which share the passes of the target
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=256))]
    max_running: u16,
    /// Memory in MiB for keys and values of the answers that run; by default half of what is free
    /// when the first request comes
    #[arg(long, value_name = "MIB")]
    kv_memory: Option<usize>,
    /// Requests that may wait for their turn
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_queue: u16,
    /// Most images of a request
    #[arg(long, value_name = "N", default_value_t = 8)]
    max_images: u16,
    /// Most videos of a request
    #[arg(long, value_name = "N", default_value_t = 2)]
    max_videos: u16,
    /// Most frames of all videos of a request that are given as frames
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_video_frames: u16,
    /// Most tokens of an answer, whatever a request asks for; by default as many as the context holds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_answer_tokens: Option<u64>,
    /// Most answers to a request (its field n)
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=128))]
    max_choices: u32,
    /// Memory in MiB that all requests together hold: bodies and fetched images; one client has half
    /// of it
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..))]
    request_memory: u32,
    /// Most connections of one client address
    #[arg(long, value_name = "N", default_value_t = 384, value_parser = clap::value_parser!(u16).range(1..))]
    max_client_connections: u16,
    /// Fetch images at public addresses of the web that clients name: at most 16 MiB and 10 seconds
    /// each, without following redirects
    #[arg(long)]
    remote_images: bool,
    /// Memory in MiB for conversations that may go on, so that their next turns read only what is
    /// new; 0 keeps nothing
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    conversation_memory: usize,
    /// Memory in MiB for images that later requests may be about, as far as requests leave it of
    /// --request-memory; 0 keeps nothing
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    image_memory: usize,
    /// Memory in MiB for what earlier answers said: what followed the last tokens there is proposed
    /// as a draft, also to other clients, who can tell by the time that an answer takes; 0 keeps
    /// nothing
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    suffix_memory: usize,
    /// Ignore fields of requests that are not known, and those that ask for what no answer shows, and
    /// name them in the header x-vispec-ignored
    #[arg(long)]
    lenient: bool,
    /// Origin whose pages may ask, such as `https://example.org`, or * for all; repeat it for several
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<CorsOrigin>,
    /// File in PEM with the certificate of the server and its chain, to speak TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// File in PEM with the private key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// What is logged to stderr: error, warn, info, debug, trace, or filters such as
    /// info,vispec_serve::access=off; by default what RUST_LOG says, else info
    #[arg(long, value_name = "LEVEL|FILTERS")]
    log: Option<String>,
    /// How long a shutdown still takes requests while /readyz says that the server is not ready
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    drain: u16,
    /// How long a shutdown waits for answers before it ends them
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    shutdown_timeout: u16,
    /// File with the key that clients must know
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let name = env!("CARGO_BIN_NAME");
    served::main(
        name,
        |flags: &mut Flags| (&flags.models, &mut flags.decode),
        run,
    )
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let options = options(flags)?;
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_color())
        .with_filter(log_filter(flags.log.as_deref())?);
    tracing_subscriber::registry().with(log).init();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .enable_all()
        .build()?;
    // An address in use is found before the models are read.
    let address = SocketAddr::new(flags.host, flags.port);
    let listener = runtime
        .block_on(async { listen(address) })
        .with_context(|| address.to_string())?;
    let address = listener.local_addr()?;

    let (model, carried) = load(flags)?;
    let name = model.id.clone();
    let scheme = if options.tls.is_some() {
        "https"
    } else {
        "http"
    };
    eprintln!("{name} at {scheme}://{address}");
    if options.api_key.is_none() && !flags.host.is_loopback() {
        eprintln!("whoever reaches this address may use it: no API key is set");
    }
    let outcome = runtime.block_on(async {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let mut any = async || {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = serve(listener, Arc::new(model), options, async {
            let _ = stopped.await;
        });
        let signals = async {
            any().await;
            eprintln!("shutting down; once more to end at once");
            let _ = stop.send(());
            any().await;
        };
        first_of(server, signals).await
    });
    // Answers that did not end are not waited for.
    runtime.shutdown_background();
    drop(carried);
    outcome
}

/// What is logged: by the flag, else by `RUST_LOG`, else everything of interest to an operator.
fn log_filter(flag: Option<&str>) -> Result<Targets, Failure> {
    let variable = std::env::var(LOG_VARIABLE).ok();
    let (place, filters) = match (flag, variable.as_deref()) {
        (Some(flag), _) => ("--log", flag),
        (None, Some(variable)) => (LOG_VARIABLE, variable),
        (None, None) => return Ok(Targets::new().with_default(LevelFilter::INFO)),
    };
    let filter = filters.parse();
    filter.map_err(|error| Failure::Usage(format!("{place}: {filters:?}: {error}")))
}

/// An address, or that of a name: of IPv4 if it has one, as clients try it.
fn host(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found = (text, 0).to_socket_addrs();
    let found =
        found.map_err(|error| format!("neither an address nor a name with one: {error}"))?;
    let addresses = Vec::from_iter(found.map(|address| address.ip()));
    let first = addresses.iter().find(|address| address.is_ipv4());
    let first = first.or(addresses.first());
    first
        .copied()
        .ok_or_else(|| "a name without an address".to_owned())
}

/// Whether the user wants no colours (no-color.org).
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Listens with more room for clients that wait to be accepted than the system gives by itself.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that was started again finds its port free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn first_of(
    server: impl Future<Output = Result<(), vispec_serve::ServeError>>,
    signals: impl Future<Output = ()>,
) -> Result<(), Failure> {
    tokio::select! {
        outcome = server => Ok(outcome?),
        () = signals => Ok(()),
    }
}

fn options(flags: &Flags) -> Result<ServeOptions, Failure> {
    let decode = &flags.decode;
    let max_answer_tokens = flags.max_answer_tokens.map(usize::try_from);
    let max_answer_tokens = max_answer_tokens.transpose().unwrap_or(None);
    let request_memory = (flags.request_memory as usize).saturating_mul(MIB);
    Ok(ServeOptions {
        defaults: RequestDefaults {
            max_new_tokens: decode.max_new_tokens,
            temperature: decode.temperature,
            top_p: decode.top_p,
            top_k: decode.sample_top_k,
            seed: decode.seed,
        },
        request_limits: RequestLimits {
            max_images: flags.max_images.into(),
            max_videos: flags.max_videos.into(),
            max_video_frames: flags.max_video_frames.into(),
            max_choices: flags.max_choices,
            max_answer_tokens: max_answer_tokens.unwrap_or(usize::MAX),
            max_memory: request_memory,
            max_client_memory: request_memory / 2,
            ..RequestLimits::default()
        },
        connection_limits: ConnectionLimits {
            max_client_connections: flags.max_client_connections.into(),
            drain: Duration::from_secs(flags.drain.into()),
            shutdown_timeout: Duration::from_secs(flags.shutdown_timeout.into()),
            ..ConnectionLimits::default()
        },
        remote_images: flags.remote_images.then(RemoteImageOptions::default),
        api_key: api_key(flags.api_key_file.as_deref())?,
        cors_origins: flags.cors_origins.clone(),
        tls: tls(flags)?,
        strictness: if flags.lenient {
            Strictness::Lenient
        } else {
            Strictness::Strict
        },
    })
}

fn tls(flags: &Flags) -> Result<Option<Tls>, Failure> {
    let (Some(certificate), Some(key)) = (&flags.tls_cert, &flags.tls_key) else {
        return Ok(None);
    };
    let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    let tls = Tls::from_pem(&read(certificate)?, &read(key)?);
    let place = || format!("{}, {}", certificate.display(), key.display());
    Ok(Some(tls.with_context(place)?))
}

fn api_key(file: Option<&Path>) -> Result<Option<ApiKey>, Failure> {
    let (key, place) = match (file, std::env::var(KEY_VARIABLE)) {
        (Some(file), _) => {
            let place = file.display().to_string();
            (std::fs::read_to_string(file).context(place.clone())?, place)
        }
        (None, Ok(key)) => (key, KEY_VARIABLE.to_owned()),
        (None, Err(std::env::VarError::NotPresent)) => return Ok(None),
        (None, Err(error)) => return Err(anyhow::anyhow!("{KEY_VARIABLE}: {error}").into()),
    };
    Ok(Some(ApiKey::new(&key).context(place)?))
}

fn scheduler(flags: &Flags) -> SchedulerOptions {
    let defaults = SchedulerOptions::default();
    let kv_memory = flags.kv_memory.map(|mib| mib.saturating_mul(MIB));
    SchedulerOptions {
        max_running: flags.max_running.into(),
        max_waiting: flags.max_queue.into(),
        kv_memory: kv_memory.map_or(defaults.kv_memory, KvMemory::Bytes),
        ..defaults
    }
}

fn load(flags: &Flags) -> Result<(EngineModel, Option<DemoPair>), Failure> {
    let spinner = ProgressBar::new_spinner().with_message("loading");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let Served {
        engine,
        method,
        name,
        carried,
    } = flags.models.load(&flags.decode.tree)?;
    spinner.finish_and_clear();
    let (tree, notes) = flags.decode.tree.measured_size(&engine, method)?;
    for note in &notes {
        eprintln!("{note}");
    }
    let settings = EngineSettings {
        method,
        tree,
        calibration: flags.decode.tree.place(),
        image_options: ImageOptions {
            max_pixels: MAX_PIXELS,
            max_photo_pixels: MAX_PHOTO_PIXELS,
            ..flags.reading.options()
        },
        conversation_memory: flags.conversation_memory.saturating_mul(MIB),
        image_memory: flags.image_memory.saturating_mul(MIB),
        suffix_memory: flags.suffix_memory.saturating_mul(MIB),
        scheduler: scheduler(flags),
    };
    let model = EngineModel {
        id: flags.served_name.clone().unwrap_or(name),
        engine: Engine::new(engine, settings),
    };
    Ok((model, carried))
}
