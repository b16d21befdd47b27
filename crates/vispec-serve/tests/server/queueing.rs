//! Requests wait in order, in bounded number, and not for clients that have disconnected.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::json;
use vispec_serve::{ConnectionLimits, ServeOptions};

use crate::held_model::HeldModel;
use crate::running::{Running, events};

const PATH: &str = "/v1/completions";
const RUNNING: &str = "vispec_num_requests_running";
const WAITING: &str = "vispec_num_requests_waiting";

async fn start(model: std::sync::Arc<HeldModel>) -> Running {
    Running::start(model, ServeOptions::default()).await
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let server = start(HeldModel::new(1, 1)).await;
    let mut body = HeldModel::hold();
    body["stream"] = true.into();
    let hold = server.post(PATH, &body).send().await.unwrap();
    server.wait_for(RUNNING, 1.0).await;
    let waits = tokio::spawn(server.post(PATH, &HeldModel::short("next")).send());
    server.wait_for(WAITING, 1.0).await;

    let refused = server.post(PATH, &HeldModel::short("one too many"));
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let retry_after = refused.headers()["retry-after"].to_str().unwrap();
    assert!(retry_after.parse::<u64>().unwrap() >= 1);
    assert!(refused.text().await.unwrap().contains("queue_full"));
    let busy = server.metric("vispec_requests_total{outcome=\"busy\"}");
    assert!((busy.await - 1.0).abs() < 1e-9);

    drop(hold);
    assert_eq!(waits.await.unwrap().unwrap().status(), 200);
}

/// So that clients that retry immediately are not refused thousands of times per second.
#[tokio::test]
async fn many_refusals_are_told_a_moment_later() {
    let server = start(HeldModel::new(1, 1)).await;
    let started = Instant::now();
    let asked = [(); 64].map(|()| server.post(PATH, &json!({"prompt": 3})).send());
    for refused in futures_util::future::join_all(asked).await {
        assert_eq!(refused.unwrap().status(), 400);
    }
    assert!(started.elapsed() >= Duration::from_millis(250));
    // Answered requests are not delayed.
    server.ask(PATH, &HeldModel::short("next")).await;
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let model = HeldModel::new(1, 4);
    let server = start(model.clone()).await;
    for (stream, cancelled) in [(true, 1.0), (false, 2.0)] {
        let mut body = HeldModel::hold();
        body["stream"] = stream.into();
        let request = tokio::spawn(server.post(PATH, &body).send());
        server.wait_for(RUNNING, 1.0).await;
        if stream {
            let mut chunks = request.await.unwrap().unwrap().bytes_stream();
            assert!(chunks.next().await.unwrap().is_ok());
        } else {
            request.abort();
        }
        server.wait_for(RUNNING, 0.0).await;
        let metric = "vispec_requests_total{outcome=\"cancelled\"}";
        server.wait_for(metric, cancelled).await;
    }
    server.ask(PATH, &HeldModel::short("next")).await;
    assert_eq!(*model.started.lock().unwrap(), ["hold", "hold", "next"]);
}

#[tokio::test]
async fn clients_that_gave_up_waiting_make_room() {
    let model = HeldModel::new(1, 1);
    let server = start(model.clone()).await;
    let hold = tokio::spawn(server.post(PATH, &HeldModel::hold()).send());
    server.wait_for(RUNNING, 1.0).await;
    let gives_up = tokio::spawn(server.post(PATH, &HeldModel::short("gives up")).send());
    server.wait_for(WAITING, 1.0).await;
    gives_up.abort();
    // The server notices it a moment later.
    let waits = tokio::spawn({
        let request = server.post(PATH, &HeldModel::short("waits"));
        async move {
            loop {
                let response = request.try_clone().unwrap().send().await.unwrap();
                if response.status() != 429 {
                    return response.status();
                }
            }
        }
    });
    let cancelled = "vispec_requests_total{outcome=\"cancelled\"}";
    server.wait_for(cancelled, 1.0).await;
    hold.abort();
    assert_eq!(waits.await.unwrap(), 200);
    assert_eq!(*model.started.lock().unwrap(), ["hold", "waits"]);
}

#[tokio::test]
async fn first_come_first_served() {
    let model = HeldModel::new(1, 8);
    let server = start(model.clone()).await;
    let hold = tokio::spawn(server.post(PATH, &HeldModel::hold()).send());
    server.wait_for(RUNNING, 1.0).await;
    let mut waiting = Vec::new();
    let names = ["a", "b", "c", "d"];
    for (name, n_waiting) in names.into_iter().zip([1.0, 2.0, 3.0, 4.0]) {
        let request = server.post(PATH, &HeldModel::short(name));
        waiting.push(tokio::spawn(request.send()));
        server.wait_for(WAITING, n_waiting).await;
    }
    hold.abort();
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(model.started.lock().unwrap()[1..], names);
}

#[tokio::test]
async fn answers_run_side_by_side() {
    let server = start(HeldModel::new(2, 0)).await;
    let hold = tokio::spawn(server.post(PATH, &HeldModel::hold()).send());
    server.wait_for(RUNNING, 1.0).await;
    server.ask(PATH, &HeldModel::short("beside")).await;
    server.wait_for(RUNNING, 1.0).await;
    let rows = |kind| format!("vispec_pass_rows_total{{kind=\"{kind}\"}}");
    assert!(server.metric(&rows("prompt")).await >= 2.0);
    assert!(server.metric(&rows("tree")).await >= 2.0);
    assert!(server.metric("vispec_passes_total").await >= 2.0);
    let memory = |kind| format!("vispec_kv_cache_memory_bytes{{kind=\"{kind}\"}}");
    let used = server.metric(&memory("used")).await;
    let reserved = server.metric(&memory("reserved")).await;
    let budget = server.metric(&memory("budget")).await;
    assert!(0.0 < used && used < reserved && reserved < budget);
    let usage = server.metric("vispec_kv_cache_usage_perc").await;
    assert!(0.0 < usage && usage < 1.0);
    hold.abort();
    server.wait_for(&memory("reserved"), 0.0).await;
}

#[tokio::test]
async fn a_shutdown_ends_what_runs_and_what_waits() {
    let options = ServeOptions {
        connection_limits: ConnectionLimits {
            shutdown_timeout: Duration::from_millis(50),
            ..ConnectionLimits::default()
        },
        ..ServeOptions::default()
    };
    let mut server = Running::start(HeldModel::new(1, 4), options).await;
    let mut body = HeldModel::hold();
    body["stream"] = json!(true);
    let streamed = server.post(PATH, &body).send().await.unwrap();
    let waits = tokio::spawn(server.post(PATH, &HeldModel::hold()).send());
    server.wait_for(WAITING, 1.0).await;
    server.stop();
    let chunks: Vec<_> = streamed.bytes_stream().collect().await;
    let text: String = chunks
        .into_iter()
        .map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap())
        .collect();
    assert!(events(&text).last().unwrap().contains("shutting_down"));
    let waited = waits.await.unwrap().unwrap();
    assert_eq!(waited.status(), 503);
    assert!(waited.headers().contains_key("retry-after"));
    server.ended().await;
}
