//! Accepting connections, and shutting down in order.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

use crate::answering::Answering;
use crate::api_key::ApiKey;
use crate::client::{Client, ClientConnection, Clients};
use crate::limits::{ConnectionLimits, RequestLimits};
use crate::metrics::Metrics;
use crate::model::AnswerModel;
use crate::remote_image::{RemoteImageLimits, RemoteImages};
use crate::request::RequestDefaults;
use crate::request_memory::RequestMemory;
use crate::routes::{App, MAX_PARSED_HEADERS, router};

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Values of fields that requests leave out.
    pub defaults: RequestDefaults,
    /// Bounds of one request.
    pub request_limits: RequestLimits,
    /// Bounds of connections and of the shutdown.
    pub connection_limits: ConnectionLimits,
    /// Bounds of fetching images at addresses of the web; `None` refuses such images.
    pub remote_images: Option<RemoteImageLimits>,
    /// The key that clients must know.
    pub api_key: Option<ApiKey>,
}

impl Default for ServeOptions {
    /// No images from elsewhere, no key.
    fn default() -> Self {
        Self {
            defaults: RequestDefaults::default(),
            request_limits: RequestLimits::default(),
            connection_limits: ConnectionLimits::default(),
            remote_images: None,
            api_key: None,
        }
    }
}

/// Why a server cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Nothing can be fetched.
    #[error("the client that fetches images could not be made")]
    RemoteImages(#[source] reqwest::Error),
}

/// Time between two attempts to accept when the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to end once answers have been ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves `model` on `listener` until `shutdown` completes.
///
/// Then no connection and no request is accepted any more, and answers that run or wait have the
/// time of the limits to end; after that they are cut off with an error.
/// Must run inside a tokio runtime with I/O and time.
///
/// # Errors
/// [`ServeError`] if the server cannot start.
pub async fn serve(
    listener: TcpListener,
    model: Arc<dyn AnswerModel>,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let metrics = Arc::new(Metrics::new());
    let answering = Answering::new(Arc::clone(&model), Arc::clone(&metrics));
    let answering = Arc::new(answering);
    let remote_images = options.remote_images.as_ref().map(RemoteImages::new);
    let remote_images = remote_images
        .transpose()
        .map_err(ServeError::RemoteImages)?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let limits = options.connection_limits.clone();
    let app = App {
        model,
        answering: Arc::clone(&answering),
        metrics,
        memory: RequestMemory::new(&options.request_limits),
        remote_images,
        responses: Arc::default(),
        tokenizing: Arc::default(),
        options: Arc::new(options),
        started: since_epoch.unwrap_or_default().as_secs(),
    };
    let connections = GracefulShutdown::new();
    accept(&listener, &router(app), &limits, &connections, shutdown).await;
    drop(listener);
    finish(&answering, connections, limits.shutdown_timeout).await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    limits: &ConnectionLimits,
    connections: &GracefulShutdown,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let clients = Clients::new(limits.max_client_connections);
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut shutdown => return,
            next = next => next,
        };
        match (place, accepted) {
            (Ok(place), Ok((stream, address))) => {
                let Some(client) = clients.enter(Client::from(address.ip())) else {
                    clients.turn_away(stream);
                    continue;
                };
                serve_connection((stream, place, client), router.clone(), limits, connections);
            }
            // Nobody closes the semaphore.
            (Err(_), _) => return,
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve_connection(
    (stream, place, client): (TcpStream, OwnedSemaphorePermit, ClientConnection),
    router: Router,
    limits: &ConnectionLimits,
    connections: &GracefulShutdown,
) {
    let of_client = client.client;
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(of_client);
        service.call(request)
    });
    // Chunks are small and must not wait for each other. Without it all still works.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_PARSED_HEADERS)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Clients that go away are nothing special.
            tracing::debug!(%error, "a connection ended early");
        }
        drop((place, client));
    });
}

/// Lets answers end, or ends them.
async fn finish(answering: &Answering, connections: GracefulShutdown, limit: Duration) {
    answering.close();
    let mut ended = pin!(connections.shutdown());
    if tokio::time::timeout(limit, &mut ended).await.is_ok() {
        return;
    }
    tracing::warn!("answers took longer than the shutdown may and are cut off");
    answering.stop();
    if tokio::time::timeout(LAST_WORDS, &mut ended).await.is_err() {
        tracing::warn!("some connections did not end");
    }
}
