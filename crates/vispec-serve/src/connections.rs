//! Limits on the connections of each client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::api_error::ApiError;
use crate::client::Client;

/// Connections by client.
#[derive(Debug)]
pub(crate) struct Clients {
    connections: Mutex<HashMap<Client, usize>>,
    max_connections: usize,
    /// Limits how many refused connections are answered at a time.
    turned_away: Arc<Semaphore>,
}

/// A connection of a client, until it is dropped.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    clients: Arc<Clients>,
    /// The client that opened it.
    pub(crate) client: Client,
}

/// Maximum number of connections that are refused with an answer at a time; others are just closed.
const TOLD: usize = 64;
/// Maximum time to send such an answer.
const TELLING: Duration = Duration::from_secs(1);

impl Clients {
    /// Creates an empty table with a maximum number of connections per client.
    pub(crate) fn new(max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            connections: Mutex::default(),
            max_connections,
            turned_away: Arc::new(Semaphore::new(TOLD)),
        })
    }

    /// Counts a connection, unless the client has reached its maximum.
    pub(crate) fn enter(self: &Arc<Self>, client: Client) -> Option<ClientConnection> {
        let connections = self.connections.lock();
        let mut connections = connections.unwrap_or_else(PoisonError::into_inner);
        let n_open = connections.entry(client).or_insert(0);
        if *n_open >= self.max_connections {
            return None;
        }
        *n_open += 1;
        Some(ClientConnection {
            clients: Arc::clone(self),
            client,
        })
    }

    /// Tells a client that it has too many connections. Reads nothing beforehand and takes at most
    /// a second, so that it costs no more than the connection itself.
    pub(crate) fn turn_away(&self, stream: TcpStream) {
        let Ok(telling) = Arc::clone(&self.turned_away).try_acquire_owned() else {
            return;
        };
        let most = self.max_connections;
        tokio::spawn(async move {
            // If the client does not read the answer, nothing is lost.
            let _ = tokio::time::timeout(TELLING, tell(stream, most)).await;
            drop(telling);
        });
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        let connections = self.clients.connections.lock();
        let mut connections = connections.unwrap_or_else(PoisonError::into_inner);
        if let Some(n_open) = connections.get_mut(&self.client) {
            *n_open -= 1;
            if *n_open == 0 {
                connections.remove(&self.client);
            }
        }
    }
}

async fn tell(mut stream: TcpStream, most: usize) -> std::io::Result<()> {
    let body = ApiError::too_many_connections(most).body().to_string();
    let head = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n\
        Retry-After: 1\r\nConnection: close";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with unread bytes would send a reset, which may overtake the answer.
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(address: &str) -> Client {
        Client::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_connection_that_is_closed_makes_room() {
        let clients = Clients::new(2);
        let open = [(); 2].map(|()| clients.enter(client("192.0.2.1")));
        assert!(open.iter().all(Option::is_some));
        assert!(clients.enter(client("192.0.2.1")).is_none());
        let other = clients.enter(client("192.0.2.2"));
        assert!(other.is_some());
        drop(open);
        assert!(clients.enter(client("192.0.2.1")).is_some());
        drop(other);
        assert!(clients.connections.lock().unwrap().is_empty());
    }
}
