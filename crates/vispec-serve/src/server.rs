//! Accepting connections and shutting down gracefully.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

use crate::answering::Answering;
use crate::app::App;
use crate::client::Client;
use crate::connections::{ClientConnection, Clients};
use crate::limits::ConnectionLimits;
use crate::metrics::Metrics;
use crate::model::AnswerModel;
use crate::options::ServeOptions;
use crate::pulse::Pulse;
use crate::remote_image::RemoteImages;
use crate::request_memory::RequestMemory;
use crate::routes::{MAX_PARSED_HEADERS, router};
use crate::tls::Tls;

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The HTTP client for images could not be created.
    #[error("the HTTP client for images could not be created")]
    RemoteImages(#[source] reqwest::Error),
}

/// Pause after a failed accept, for example when the system is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to close after answers have been cut off.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves `model` on `listener` until `shutdown` completes.
///
/// After that, no connection or request is accepted, and answers that run or wait may still finish
/// within the time limit; then they are cut off with an error.
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
    let tls = options.tls.clone();
    let keeper = Arc::clone(&model);
    let memory = RequestMemory::new(&options.request_limits, move |spare| {
        keeper.limit_kept_images(spare);
    });
    let app = App {
        model,
        answering: Arc::clone(&answering),
        metrics,
        memory,
        remote_images,
        responses: Arc::default(),
        tokenizing: Arc::default(),
        options: Arc::new(options),
        pulse: Pulse::new(),
        started: since_epoch.unwrap_or_default().as_secs(),
    };
    let connections = GracefulShutdown::new();
    let shutdown = async {
        shutdown.await;
        answering.drain();
        tokio::time::sleep(limits.drain).await;
    };
    let entrance = Entrance {
        router: router(app),
        tls,
        limits: &limits,
        connections: &connections,
    };
    entrance.accept(&listener, shutdown).await;
    drop(listener);
    finish(&answering, connections, limits.shutdown_timeout).await;
    Ok(())
}

/// Accepts connections.
struct Entrance<'a> {
    router: Router,
    tls: Option<Tls>,
    limits: &'a ConnectionLimits,
    connections: &'a GracefulShutdown,
}

impl Entrance<'_> {
    async fn accept(&self, listener: &TcpListener, shutdown: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(self.limits.max_connections));
        let clients = Clients::new(self.limits.max_client_connections);
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
                        // Unencrypted: a TLS handshake for each would be too expensive.
                        clients.turn_away(stream);
                        continue;
                    };
                    self.take(stream, (place, client));
                }
                // The semaphore is never closed.
                (Err(_), _) => return,
                (Ok(_), Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection, after the TLS handshake if TLS is enabled.
    fn take(&self, stream: TcpStream, held: (OwnedSemaphorePermit, ClientConnection)) {
        // Chunks are small and must not wait for each other. If this fails, all still works.
        let _ = stream.set_nodelay(true);
        let router = self.router.clone();
        let limits = self.limits.clone();
        let watcher = self.connections.watcher();
        let Some(tls) = self.tls.clone() else {
            tokio::spawn(converse(stream, held, router, limits, watcher));
            return;
        };
        tokio::spawn(async move {
            let greeting = tls.acceptor.accept(stream);
            match tokio::time::timeout(limits.header_timeout, greeting).await {
                Ok(Ok(stream)) => converse(stream, held, router, limits, watcher).await,
                Ok(Err(error)) => tracing::debug!(%error, "the TLS handshake failed"),
                Err(_) => tracing::debug!("the TLS handshake timed out"),
            }
        });
    }
}

/// Serves HTTP on a connection.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    held: (OwnedSemaphorePermit, ClientConnection),
    router: Router,
    limits: ConnectionLimits,
    watcher: Watcher,
) {
    let client = held.1.client;
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        service.call(request)
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_PARSED_HEADERS)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        // It is normal that clients disconnect.
        tracing::debug!(%error, "a connection ended early");
    }
    drop(held);
}

/// Waits for answers to finish, and cuts them off after the limit.
async fn finish(answering: &Answering, connections: GracefulShutdown, limit: Duration) {
    answering.close();
    let mut ended = pin!(connections.shutdown());
    if tokio::time::timeout(limit, &mut ended).await.is_ok() {
        return;
    }
    tracing::warn!("answers took longer than the shutdown timeout and are cut off");
    answering.stop();
    if tokio::time::timeout(LAST_WORDS, &mut ended).await.is_err() {
        tracing::warn!("some connections did not close");
    }
}
