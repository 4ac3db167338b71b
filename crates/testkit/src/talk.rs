//! HTTP/1.1 written by hand over any connection, for requests that a client library doesn't send
//! and answers that it doesn't show.

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub struct Told {
    /// The status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub body: String,
}

/// Sends a request over a connection that stays open, and reads the answer.
///
/// # Errors
///
/// Fails if the connection fails or ends early, or the answer isn't HTTP.
pub async fn ask(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    path: &str,
) -> io::Result<Told> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: streamgate\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;
    hear(connection).await
}

/// Reads an answer that states its length.
///
/// # Errors
///
/// Fails if the connection fails or ends early, or the answer isn't HTTP.
pub async fn hear(connection: &mut (impl AsyncRead + Unpin)) -> io::Result<Told> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let strange = || io::Error::new(ErrorKind::InvalidData, head.clone());
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    connection.read_exact(&mut body).await?;
    Ok(Told {
        status: status.ok_or_else(strange)?,
        body: String::from_utf8(body).map_err(|_| strange())?,
    })
}

/// Waits until the other side has ended the connection; what it said before.
pub async fn ended(connection: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut heard = Vec::new();
    // However it ends.
    drop(connection.read_to_end(&mut heard).await);
    heard
}

/// Sends the beginning of a head byte by byte, then a header that never ends, until the other side
/// gives up; returns its answer.
pub async fn trickle(connection: TcpStream, beginning: &[u8], pace: Duration) -> Vec<u8> {
    let (mut read, mut write) = connection.into_split();
    let sending = async {
        for byte in beginning.iter().chain(std::iter::repeat(&b'a')) {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(pace).await;
        }
        std::future::pending().await
    };
    tokio::select! { never = sending => never, heard = ended(&mut read) => heard }
}
