//! Requests wait in order, not too many of them, and not for clients that have gone.

use futures_util::StreamExt as _;
use serde_json::json;
use vispec_serve::ServeOptions;

use crate::running::Running;
use crate::scripted::Scripted;

const PATH: &str = "/v1/completions";
const RUNNING: &str = "vispec_running_requests";
const WAITING: &str = "vispec_waiting_requests";

fn options(max_queue: usize) -> ServeOptions {
    ServeOptions {
        max_queue,
        ..ServeOptions::default()
    }
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let server = Running::start(Scripted::new(), options(1)).await;
    let hold = server.post(PATH, &json!({"prompt": "hold", "stream": true}));
    let hold = hold.send().await.unwrap();
    server.wait_for(RUNNING, 1.0).await;
    let waits = tokio::spawn(server.post(PATH, &json!({"prompt": "next"})).send());
    server.wait_for(WAITING, 1.0).await;

    let refused = server.post(PATH, &json!({"prompt": "one too many"}));
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let retry_after = refused.headers()["retry-after"].to_str().unwrap();
    assert!(retry_after.parse::<u64>().unwrap() >= 1);
    assert!(refused.text().await.unwrap().contains("queue_full"));
    assert!(
        (server
            .metric("vispec_requests_total{outcome=\"busy\"}")
            .await
            - 1.0)
            .abs()
            < 1e-9
    );

    drop(hold);
    assert_eq!(waits.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_worker() {
    let model = Scripted::new();
    let server = Running::start(model.clone(), options(4)).await;
    for (stream, cancelled) in [(true, 1.0), (false, 2.0)] {
        let body = json!({"prompt": "hold", "stream": stream});
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
    let answer = server.ask(PATH, &json!({"prompt": "next"})).await;
    assert_eq!(answer["choices"][0]["text"], "next");
    assert_eq!(*model.ended.lock().unwrap(), ["hold", "hold", "next"]);
}

#[tokio::test]
async fn clients_that_gave_up_waiting_make_room() {
    let server = Running::start(Scripted::new(), options(1)).await;
    let hold = tokio::spawn(server.post(PATH, &json!({"prompt": "hold"})).send());
    server.wait_for(RUNNING, 1.0).await;
    let gives_up = tokio::spawn(server.post(PATH, &json!({"prompt": "gives up"})).send());
    server.wait_for(WAITING, 1.0).await;
    gives_up.abort();
    // The server hears of it a moment later.
    let waits = tokio::spawn({
        let request = server.post(PATH, &json!({"prompt": "waits"}));
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
}

#[tokio::test]
async fn first_come_first_served() {
    let model = Scripted::new();
    let server = Running::start(model.clone(), options(8)).await;
    let hold = tokio::spawn(server.post(PATH, &json!({"prompt": "hold"})).send());
    server.wait_for(RUNNING, 1.0).await;
    let mut waiting = Vec::new();
    let names = ["a", "b", "c", "d"];
    for (name, n_waiting) in names.into_iter().zip([1.0, 2.0, 3.0, 4.0]) {
        waiting.push(tokio::spawn(
            server.post(PATH, &json!({"prompt": name})).send(),
        ));
        server.wait_for(WAITING, n_waiting).await;
    }
    hold.abort();
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(model.ended.lock().unwrap()[1..], names);
}

#[tokio::test]
async fn answers_run_side_by_side_if_told_to() {
    let options = ServeOptions {
        parallel: 2,
        max_queue: 0,
        ..ServeOptions::default()
    };
    let server = Running::start(Scripted::new(), options).await;
    let hold = tokio::spawn(server.post(PATH, &json!({"prompt": "hold"})).send());
    server.wait_for(RUNNING, 1.0).await;
    let answer = server.ask(PATH, &json!({"prompt": "beside"})).await;
    assert_eq!(answer["choices"][0]["text"], "beside");
    hold.abort();
}
