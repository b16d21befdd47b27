//! A server on a free port, with helpers for requests.

use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vispec_serve::{AnswerModel, ServeError, ServeOptions, serve};

pub struct Running {
    pub base: String,
    pub client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub async fn start(model: Arc<dyn AnswerModel>, options: ServeOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        Self {
            base,
            client: reqwest::Client::new(),
            stop: Some(stop),
            task: tokio::spawn(serve(listener, model, options, shutdown)),
        }
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    pub fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.base)).json(body)
    }

    /// Returns the object at a path, whatever the status.
    pub async fn look(&self, path: &str) -> Value {
        let response = self.get(path).send().await.unwrap();
        response.json().await.unwrap()
    }

    /// Returns the object that answers a request, which must succeed.
    pub async fn ask(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body).send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Returns the events of a streamed answer, including the closing `[DONE]`.
    pub async fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let response = self.post(path, body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        events(&response.text().await.unwrap())
    }

    /// Returns the value of a metric, given by its name and labels as written.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").send().await.unwrap();
        let text = text.text().await.unwrap();
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let (_, value) = lines
            .find(|(found, _)| *found == name)
            .unwrap_or_else(|| panic!("{name} not in\n{text}"));
        value.parse().unwrap()
    }

    /// Waits until a metric has a value; if that never happens, the test hangs.
    pub async fn wait_for(&self, name: &str, value: f64) {
        while (self.metric(name).await - value).abs() > 1e-9 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Asks the server to shut down, as a signal does.
    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn ended(self) {
        self.task.await.unwrap().unwrap();
    }
}

/// Returns the data of the events in a stream.
pub fn events(text: &str) -> Vec<String> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(str::to_owned).collect()
}

/// Returns the chunks of a stream that ended normally.
pub fn chunks(events: &[String]) -> Vec<Value> {
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks = chunks.iter().map(|chunk| serde_json::from_str(chunk));
    chunks.collect::<Result<_, _>>().unwrap()
}
