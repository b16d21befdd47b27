//! The server as a program: flags, the built-in models, and signals.

#![cfg(unix)] // memory is bounded with ulimit
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and nothing is used from outside"
)]

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

#[allow(
    dead_code,
    reason = "shared by the tests of all programs, and some use only a part"
)]
#[path = "../../answer/tests/cli/program.rs"]
mod program;

use program::Program;

fn serve() -> Program {
    Program::new(env!("CARGO_BIN_EXE_serve"))
}

/// Starts a server on a free port; returns it with its address.
fn start(program: Program) -> (Child, String) {
    let (child, address, mut stderr) = start_talking(program);
    // Later output must not block the server because nobody reads it.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    (child, address)
}

/// Like [`start`], and also returns the stderr of the server.
fn start_talking(program: Program) -> (Child, String, impl BufRead + Send + 'static) {
    let mut command = program.args("--port 0").command();
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // Before the address it may print that the cost of passes was measured.
    let address = loop {
        let mut line = String::new();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0);
        if let Some((_, address)) = line.trim().rsplit_once("http://") {
            break address.to_owned();
        }
    };
    (child, address, stderr)
}

fn request(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_carried_models_answer_until_a_signal() {
    let (mut server, address) = start(serve());
    let models = request(&address, "GET /v1/models", "");
    assert!(models.contains("vispec-demo"), "{models}");
    let body = r#"{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}"#;
    let answer = request(&address, "POST /v1/chat/completions", body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"completion_tokens\":3"), "{answer}");
    let id = server.id().to_string();
    let status = Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(status.success());
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn each_request_is_a_line_of_the_log() {
    let (mut server, address, mut stderr) = start_talking(serve().args("--log info"));
    let body = r#"{"prompt": "Hi", "max_tokens": 2}"#;
    let head = "POST /v1/completions?key=private HTTP/1.1\r\nX-Request-Id: mine-7\r\nX-Rest:";
    let answer = request(&address, head, body);
    assert!(
        answer.to_lowercase().contains("x-request-id: mine-7"),
        "{answer}"
    );
    request(&address, "GET /livez", "");
    request(&address, "GET /nowhere", "");
    server.kill().unwrap();
    server.wait().unwrap();
    let mut log = String::new();
    stderr.read_to_string(&mut log).unwrap();
    let mut lines = log
        .lines()
        .filter(|line| line.contains("vispec_serve::access"));
    let line = lines.next().unwrap();
    for part in [
        "mine-7",
        "/v1/completions",
        "status=200",
        "whole=true",
        "127.0.0.1",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!log.contains("private"), "{log}");
    // Successful probes are not logged at this level.
    let line = lines.next().unwrap();
    assert!(
        line.contains("/nowhere") && line.contains("status=404"),
        "{line}"
    );
    assert_eq!(lines.next(), None);
}

#[test]
fn flags_that_make_no_sense_are_named() {
    for (flags, named) in [
        ("--log vispec=loud", "--log"),
        ("--cors-origin example.org", "--cors-origin"),
        ("--tls-cert a.pem", "--tls-key"),
        ("--image-orientation sideways", "--image-orientation"),
    ] {
        let output = serve().args(flags).command().output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags}: {stderr}");
        assert!(stderr.contains(named), "{flags}: {stderr}");
    }
}

#[test]
fn a_key_from_a_file_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "secret\n").unwrap();
    let (mut server, address) = start(serve().path("--api-key-file", &file));
    let answer = request(&address, "GET /v1/models", "");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let head = "GET /v1/models HTTP/1.1\r\nAuthorization: Bearer secret\r\nX-Rest:";
    let answer = request(&address, head, "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn limits_of_the_operator_hold() {
    let flags = "--host localhost --max-answer-tokens 4 --max-choices 2";
    let (mut server, address) = start(serve().args(flags));
    for (field, value) in [("max_tokens", 5), ("n", 3)] {
        let body = format!(r#"{{"prompt": "Hi", "{field}": {value}}}"#);
        let answer = request(&address, "POST /v1/completions", &body);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(
            answer.contains(&format!(r#""param":"{field}""#)),
            "{answer}"
        );
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Returns the log of a server that fails to fetch an image.
fn log() -> String {
    let mut command = serve().args("--port 0 --remote-images").command();
    let mut server = command
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(server.stderr.take().unwrap());
    let mut log = String::new();
    while !log.contains("http://") {
        assert_ne!(stderr.read_line(&mut log).unwrap(), 0);
    }
    let address = log.trim().rsplit_once("http://").unwrap().1.to_owned();
    log.clear();
    let url = "http://nowhere.invalid/x.png";
    let body = format!(
        r#"{{"messages": [{{"role": "user", "content": [
            {{"type": "image_url", "image_url": {{"url": "{url}"}}}}]}}]}}"#
    );
    request(&address, "POST /v1/chat/completions", &body);
    stderr.read_line(&mut log).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    log
}

#[test]
fn logs_that_go_to_a_file_have_no_colours() {
    let log = log();
    assert!(log.contains("an image could not be fetched"), "{log:?}");
    assert!(!log.contains('\u{1b}'), "{log:?}");
}

#[test]
fn what_cannot_be_served_is_refused_at_once() {
    for (args, names) in [
        ("--draft somewhere", &["--draft", "--target"][..]),
        ("--max-running 0", &["--max-running"]),
        ("--host nowhere", &["--host"]),
        ("--port 65536", &["--port"]),
        ("--max-new-tokens 0", &["--max-new-tokens"]),
        ("--max-answer-tokens 0", &["--max-answer-tokens"]),
        ("--max-choices 0", &["--max-choices"]),
        ("--request-memory 1", &["--request-memory"]),
        ("--max-client-connections 0", &["--max-client-connections"]),
    ] {
        serve().args(args).run().assert_refused(args, 2, names);
    }
    let missing = serve().args("--api-key-file /nonexistent/key").run();
    missing.assert_refused("no key file", 1, &["/nonexistent/key"]);
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = serve().path("--api-key-file", empty.path()).run();
    empty.assert_refused("empty key file", 1, &["API key is empty"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let outcome = serve().arg("--port").arg(&port).run();
    outcome.assert_refused("address in use", 1, &[&port]);
}
