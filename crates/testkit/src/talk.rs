//! Owns saying HTTP/1.1 by hand over whatever carries it, for what a client library would not do or not show.

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

/// Asks over a connection that stays open, and hears the answer.
///
/// # Errors
///
/// Fails if the connection fails or ends early, or what comes back is no HTTP.
pub async fn ask(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    path: &str,
) -> io::Result<Told> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: streamgate\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;
    hear(connection).await
}

/// Hears an answer whose length is told.
///
/// # Errors
///
/// Fails if the connection fails or ends early, or what comes back is no HTTP.
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

/// Sends the beginning of a head a byte at a time, and a last header that never ends, until the other side has had enough; what that said.
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
