//! Serves a target and its draft through OpenAI's API, with a web page to try it.
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
use examples_answer::served::{self, ServedFlags};
use indicatif::ProgressBar;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use vispec::{EngineSettings, ImageOptions, KvMemory, SchedulerOptions};
use vispec_serve::{
    ApiKey, ConnectionLimits, CorsOrigin, EngineModel, RemoteImageOptions, RequestDefaults,
    RequestLimits, ServeOptions, Strictness, Tls, serve,
};

/// Environment variable that may hold the key, as an alternative to a file.
const KEY_VARIABLE: &str = "VISPEC_API_KEY";
/// Environment variable that may hold filters for the log.
const LOG_VARIABLE: &str = "RUST_LOG";
/// Maximum number of pixels of an image; decoding takes up to 16 bytes per pixel.
const MAX_PIXELS: u64 = 16 << 20;
/// Maximum number of pixels of a photo, which is scaled down while it is decoded; this takes one
/// second per 50 million pixels.
const MAX_PHOTO_PIXELS: u64 = 128 << 20;
const MIB: usize = 1 << 20;
/// Number of connections that may wait to be accepted; the system resets further ones.
const BACKLOG: u32 = 1024;
/// Number of threads for connections; answers have their own threads.
const IO_THREADS: usize = 2;

/// Serve a vision-language model through OpenAI's API; answers equal those of plain decoding
///
/// The API key, if any, is read from the file of --api-key-file or from the environment variable
/// VISPEC_API_KEY. Sampling flags are the defaults for requests that do not set these values.
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
    /// Model name that clients see; by default the name of the target
    #[arg(long, value_name = "NAME")]
    served_name: Option<String>,
    /// Address to listen on, or a host name of this machine
    #[arg(long, default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,
    /// Port to listen on; 0 chooses a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Maximum number of concurrent answers, which share the passes of the target
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=256))]
    max_running: u16,
    /// Memory in MiB for keys and values of running answers; by default half of the memory that is
    /// free at the first request
    #[arg(long, value_name = "MIB")]
    kv_memory: Option<usize>,
    /// Maximum number of waiting requests
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_queue: u16,
    /// Maximum number of images per request
    #[arg(long, value_name = "N", default_value_t = 8)]
    max_images: u16,
    /// Maximum number of videos per request
    #[arg(long, value_name = "N", default_value_t = 2)]
    max_videos: u16,
    /// Maximum number of frames per request, in all its videos that are given as frames
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_video_frames: u16,
    /// Maximum number of tokens of an answer, whatever a request asks for; by default limited only
    /// by the context
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_answer_tokens: Option<u64>,
    /// Maximum number of answers per request (its field n)
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=128))]
    max_choices: u32,
    /// Memory in MiB for the bodies and fetched images of all requests; one client may use half of
    /// it
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..))]
    request_memory: u32,
    /// Maximum number of connections per client address
    #[arg(long, value_name = "N", default_value_t = 384, value_parser = clap::value_parser!(u16).range(1..))]
    max_client_connections: u16,
    /// Fetch images from public web addresses in requests: at most 16 MiB and 10 seconds each,
    /// without following redirects
    #[arg(long)]
    remote_images: bool,
    /// Memory in MiB for caches of conversations, so that their next turns read only the new part;
    /// 0 keeps nothing
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    conversation_memory: usize,
    /// Memory in MiB for images that later requests may reuse, within the part of --request-memory
    /// that requests leave free; 0 keeps nothing
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    image_memory: usize,
    /// Memory in MiB for earlier answers, whose continuations of the last tokens are proposed as
    /// drafts. They are also used for other clients, who could detect this by the time that an
    /// answer takes; 0 keeps nothing
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    suffix_memory: usize,
    /// Ignore unknown request fields, and fields that request something that does not appear in
    /// answers, and list them in the header x-vispec-ignored
    #[arg(long)]
    lenient: bool,
    /// Origin whose pages may send requests, such as `https://example.org`, or * for all; repeat
    /// the flag for several
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<CorsOrigin>,
    /// PEM file with the server's certificate and its chain, to enable TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Log level on stderr: error, warn, info, debug, trace, or filters such as
    /// info,vispec_serve::access=off; by default the value of RUST_LOG, else info
    #[arg(long, value_name = "LEVEL|FILTERS")]
    log: Option<String>,
    /// Seconds during which a shutdown still accepts requests while /readyz reports that the server
    /// is not ready
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    drain: u16,
    /// Seconds that a shutdown waits for answers before it ends them
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    shutdown_timeout: u16,
    /// File with the API key that clients must send
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
    // An address in use is detected before the models are read.
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
        eprintln!("anyone who can reach this address can use the server: no API key is set");
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
            eprintln!("shutting down; send the signal again to exit immediately");
            let _ = stop.send(());
            any().await;
        };
        first_of(server, signals).await
    });
    // Unfinished answers are not waited for.
    runtime.shutdown_background();
    drop(carried);
    outcome
}

/// Returns the log filter: from the flag, else from `RUST_LOG`, else the level `info`.
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

/// Parses an address or resolves a host name. IPv4 addresses come first, because clients try them.
fn host(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found = (text, 0).to_socket_addrs();
    let found =
        found.map_err(|error| format!("neither an address nor a known host name: {error}"))?;
    let addresses = Vec::from_iter(found.map(|address| address.ip()));
    let first = addresses.iter().find(|address| address.is_ipv4());
    let first = first.or(addresses.first());
    first
        .copied()
        .ok_or_else(|| "a host name without an address".to_owned())
}

/// Returns `true` if the user wants no colours (no-color.org).
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Listens with a larger backlog than the system's default.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Lets a restarted server bind its old port.
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
    let served = flags.models.load(&flags.decode.tree)?;
    spinner.finish_and_clear();
    let settings = EngineSettings {
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
    let id = flags.served_name.as_ref().unwrap_or(&served.name).clone();
    let (engine, carried) = served.engine(&flags.decode.tree, settings)?;
    Ok((EngineModel { id, engine }, carried))
}
