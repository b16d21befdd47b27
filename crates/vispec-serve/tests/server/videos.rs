//! Videos in requests: frames and animations, conversations about them, and refusals.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};
use vispec::{DecodedImage, ImageOptions, Sampler};
use vispec_processor::Video;
use vispec_serve::{EngineModel, RequestLimits, ServeOptions};

use crate::running::Running;
use crate::tiny_model::{frame_files, image_file, load_pair, model, plain_video};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const ASK: &str = "What happens?";
pub const FRAMES: &str = "video/cases/qwen-tied/video-4f-fps2";

pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Frames in the form that vLLM takes.
fn frames_url(files: &[Vec<u8>]) -> String {
    let frames = Vec::from_iter(files.iter().map(|file| base64(file)));
    format!("data:video/jpeg;base64,{}", frames.join(","))
}

fn about(part: Value) -> Value {
    json!({"max_tokens": 24, "seed": 3, "messages": [{"role": "user", "content": [
        part,
        {"type": "text", "text": ASK},
    ]}]})
}

pub fn video_of(files: &[Vec<u8>], fps: f64) -> Video {
    let options = ImageOptions::default();
    Video::sampled((files.len(), fps), Video::MAX_PIXELS, |place| {
        DecodedImage::from_bytes(&files[place], &options)
    })
    .unwrap()
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

/// A square that moves across a canvas of 64 x 64 pixels, in eight frames over two seconds.
pub fn animation() -> Vec<u8> {
    let mut bytes = Vec::new();
    let palette = [30, 60, 200, 220, 40, 40];
    let mut encoder = gif::Encoder::new(&mut bytes, 64, 64, &palette).unwrap();
    for step in 0..8 {
        let inside = |place: usize| {
            let (row, column) = (place / 64, place % 64);
            (20..44).contains(&row) && (5 * step..5 * step + 24).contains(&column)
        };
        let frame = gif::Frame {
            width: 64,
            height: 64,
            delay: 25,
            buffer: (0..64 * 64).map(|place| u8::from(inside(place))).collect(),
            ..gif::Frame::default()
        };
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    bytes
}

/// Targets that read videos, with drafts; they keep no conversations.
fn models() -> [Arc<EngineModel>; 2] {
    let blind = "qwen3-untied-eagle3-vllm-mrope-qwen3vl";
    [("qwen-tied", "qwen-tied-q4"), ("qwen3-untied", blind)]
        .map(|(target, draft)| Arc::new(load_pair(target, Some(draft))))
}

#[tokio::test]
async fn answers_are_those_of_plain_decoding() {
    let files = frame_files(FRAMES);
    let gif = animation();
    let list = files.iter();
    let list = Vec::from_iter(list.map(|file| format!("data:image/png;base64,{}", base64(file))));
    let gif_url = format!("data:image/gif;base64,{}", base64(&gif));
    let options = ImageOptions::default();
    let drawn = Video::from_animation(&gif, &options, Video::MAX_PIXELS).unwrap();
    assert_eq!(drawn.frames().len(), 4);
    for model in models() {
        let server = Running::start(Arc::clone(&model) as _, ServeOptions::default()).await;
        let url = frames_url(&files);
        let cases = [
            (
                json!({"type": "video_url", "video_url": {"url": url}}),
                video_of(&files, 2.0),
            ),
            (
                json!({"type": "video_url", "video_url": {"url": url, "fps": 1}}),
                video_of(&files, 1.0),
            ),
            (
                json!({"type": "video", "video": list}),
                video_of(&files, 2.0),
            ),
            (
                json!({"type": "video_url", "video_url": {"url": gif_url}}),
                drawn.clone(),
            ),
        ];
        let n_cases = cases.len() as f64;
        for (part, video) in cases {
            for temperature in [0.0, 1.0] {
                let sampler = Sampler::new(temperature, None, None).unwrap();
                let expected = plain_video(&model, video.clone(), ASK, sampler);
                let mut body = about(part.clone());
                body["temperature"] = temperature.into();
                let answer = server.ask(CHAT, &body).await;
                assert_eq!(text(&answer), expected.text, "{temperature}");
                let usage = &answer["usage"];
                assert_eq!(usage["prompt_tokens"], expected.prompt_tokens);
            }
        }
        let counted = server.metric("vispec_request_videos_total").await;
        assert!((counted - 2.0 * n_cases).abs() < 0.5, "{counted}");
    }
}

#[tokio::test]
async fn the_next_question_finds_the_video_read() {
    let files = frame_files(FRAMES);
    let part = |fps: f64| json!({"type": "video_url", "video_url": {"url": frames_url(&files), "fps": fps}});
    for (model, fresh) in models().into_iter().zip(models()) {
        let server = Running::start(model, ServeOptions::default()).await;
        let first = server.ask(CHAT, &about(part(2.0))).await;
        let mut next = about(part(2.0));
        let messages = next["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": text(&first)}));
        messages.push(json!({"role": "user", "content": "And then?"}));
        let cached = |answer: &Value| {
            let details = &answer["usage"]["prompt_tokens_details"];
            details["cached_tokens"].as_u64().unwrap()
        };
        let prompt = first["usage"]["prompt_tokens"].as_u64().unwrap();
        let answer = server.ask(CHAT, &next).await;
        assert!(cached(&answer) >= prompt - 1, "{answer}");
        // The same question to a server without kept conversations.
        let mut plain = next.clone();
        plain["speculation"] = "off".into();
        let fresh = Running::start(fresh, ServeOptions::default()).await;
        assert_eq!(text(&fresh.ask(CHAT, &plain).await), text(&answer));
        // Frames at another rate are a different video.
        let mut slower = next.clone();
        slower["messages"][0]["content"][0] = part(1.0);
        let other = server.ask(CHAT, &slower).await;
        assert!(cached(&other) < 40, "{other}");
    }
}

/// A request to `/v1/responses` that asks the same as [`about`] does in a chat.
fn response_about(video_url: Value) -> Value {
    json!({"max_output_tokens": 24, "seed": 3, "input": [{"role": "user", "content": [
        {"type": "input_video", "video_url": video_url},
        {"type": "input_text", "text": ASK},
    ]}]})
}

#[tokio::test]
async fn a_response_about_a_video_is_the_answer_of_a_chat() {
    let files = frame_files(FRAMES);
    let gif = format!("data:image/gif;base64,{}", base64(&animation()));
    let said = |response: &Value| response["output"][0]["content"][0]["text"].clone();
    for model in models() {
        let server = Running::start(model, ServeOptions::default()).await;
        for video in [
            json!(frames_url(&files)),
            json!({"url": frames_url(&files), "fps": 1}),
            json!(gif),
        ] {
            let mut chat = about(json!({"type": "video_url", "video_url": video}));
            let expected = server.ask(CHAT, &chat).await;
            let response = server.ask(RESPONSES, &response_about(video)).await;
            let tokens = |of: &Value, name: &str| of["usage"][name].as_u64().unwrap();
            assert_eq!(said(&response), text(&expected));
            assert_eq!(
                tokens(&response, "input_tokens"),
                tokens(&expected, "prompt_tokens")
            );

            // The next turn still shows the video.
            let next = json!({
                "input": "And then?", "max_output_tokens": 24, "seed": 3,
                "previous_response_id": response["id"],
            });
            let next = server.ask(RESPONSES, &next).await;
            let turns = chat["messages"].as_array_mut().unwrap();
            turns.push(json!({"role": "assistant", "content": said(&response)}));
            turns.push(json!({"role": "user", "content": "And then?"}));
            let expected = server.ask(CHAT, &chat).await;
            assert_eq!(said(&next), text(&expected));
            assert_eq!(
                tokens(&next, "input_tokens"),
                tokens(&expected, "prompt_tokens")
            );
        }
    }
}

#[tokio::test]
async fn a_response_names_what_is_wrong_with_its_video() {
    let files = frame_files(FRAMES);
    let frames = frames_url(&files);
    let qwen = Running::start(
        Arc::new(load_pair("qwen3-tied", None)),
        ServeOptions::default(),
    );
    let llava = Running::start(
        Arc::new(load_pair("llava-15", None)),
        ServeOptions::default(),
    );
    let (qwen, llava) = (qwen.await, llava.await);
    let at = "input[0].content[0].video_url";
    let url = format!("{at}.url");
    let fps = format!("{at}.fps");
    for (server, video, code, param) in [
        (&qwen, json!(null), "missing_field", at),
        (&qwen, json!(7), "invalid_type", at),
        (
            &qwen,
            json!("data:video/mp4;base64,QUI="),
            "invalid_video",
            at,
        ),
        (
            &qwen,
            json!("https://example.org/x.mp4"),
            "remote_video",
            at,
        ),
        (&qwen, json!({"url": 1}), "invalid_type", &url),
        (
            &qwen,
            json!({"url": frames, "fps": 0}),
            "invalid_value",
            &fps,
        ),
        (
            &qwen,
            json!(frames_url(&files[..1])),
            "invalid_video",
            "input",
        ),
        (&llava, json!(frames), "videos_unsupported", "input"),
    ] {
        let error = refused_at(server, RESPONSES, &response_about(video)).await;
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!(code), &json!(param)),
            "{error}"
        );
    }
}

/// Returns the error of a chat.
async fn refused(server: &Running, body: &Value) -> Value {
    refused_at(server, CHAT, body).await
}

/// Returns the error of a request to `place`.
async fn refused_at(server: &Running, place: &str, body: &Value) -> Value {
    let response = server.post(place, body).send().await.unwrap();
    assert_eq!(response.status(), 400);
    let body: Value = response.json().await.unwrap();
    body["error"].clone()
}

fn frame(files: &[Vec<u8>]) -> Value {
    json!({"type": "video_url", "video_url": {"url": frames_url(files)}})
}

#[tokio::test]
async fn videos_that_cannot_be_read_are_refused() {
    let files = frame_files(FRAMES);
    let frame =
        |files: &[Vec<u8>]| json!({"type": "video_url", "video_url": {"url": frames_url(files)}});
    let mixed = [&files[..3], &[image_file()]].concat();
    let broken = [&files[..3], &[b"no image".to_vec()]].concat();
    let gif = format!("data:image/gif;base64,{}", base64(&animation()[..200]));
    let gif = json!({"type": "video_url", "video_url": gif});
    let web = json!({"type": "video_url", "video_url": {"url": "https://example.org/x.mp4"}});
    let qwen: Arc<EngineModel> = Arc::new(load_pair("qwen3-tied", None));
    let llava: Arc<EngineModel> = Arc::new(load_pair("llava-15", None));
    let options = ServeOptions {
        request_limits: RequestLimits {
            max_videos: 1,
            max_video_frames: 5,
            ..RequestLimits::default()
        },
        ..ServeOptions::default()
    };
    let at = "messages[0].content[0].video_url.url";
    let cases = [
        (&qwen, frame(&mixed), "messages", "invalid_video", "frame 3"),
        (
            &qwen,
            frame(&broken),
            "messages",
            "invalid_video",
            "video 0: frame 3: ",
        ),
        (
            &qwen,
            frame(&files[..1]),
            "messages",
            "invalid_video",
            "is 1, expected at least 2",
        ),
        (&qwen, gif, "messages", "invalid_video", "video 0: "),
        (
            &qwen,
            frame(&[&files[..], &files].concat()),
            at,
            "too_many_frames",
            "5",
        ),
        (&qwen, web, at, "remote_video", "ffmpeg"),
        (
            &llava,
            frame(&files),
            "messages",
            "videos_unsupported",
            "no videos",
        ),
    ];
    let mut servers = Vec::new();
    for model in [&qwen, &llava] {
        let server = Running::start(Arc::clone(model) as _, options.clone()).await;
        servers.push((model, server));
    }
    for (model, part, param, code, message) in cases {
        let found = servers.iter().find(|(of, _)| Arc::ptr_eq(of, model));
        let server = &found.unwrap().1;
        let error = refused(server, &about(part)).await;
        assert_eq!(
            (&error["param"], &error["code"]),
            (&param.into(), &code.into()),
            "{error}"
        );
        let told = error["message"].as_str().unwrap();
        assert!(
            told.contains(message) && !told.contains("fixtures"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_request_has_so_many_videos() {
    let files = frame_files(FRAMES);
    let options = ServeOptions {
        request_limits: RequestLimits {
            max_videos: 1,
            ..RequestLimits::default()
        },
        ..ServeOptions::default()
    };
    let server = Running::start(model(), options).await;
    let mut two = about(frame(&files[..2]));
    let content = two["messages"][0]["content"].as_array_mut().unwrap();
    content.push(frame(&files[2..]));
    let error = refused(&server, &two).await;
    assert_eq!(error["code"], "too_many_videos", "{error}");
}
