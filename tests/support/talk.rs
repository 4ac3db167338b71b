//! Owns saying HTTP/1.1 by hand over whatever carries it, for what a client library would not do or not show.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Asks over a connection that stays open, and hears the answer.
pub(crate) async fn ask(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    path: &str,
) -> io::Result<Told> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: streamgate\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;
    hear(connection).await
}

/// Hears an answer whose length is told.
pub(crate) async fn hear(connection: &mut (impl AsyncRead + Unpin)) -> io::Result<Told> {
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

/// Waits until the other side has ended the connection, whatever it says before.
pub(crate) async fn ended(connection: &mut (impl AsyncRead + Unpin)) {
    let mut rest = [0; 1024];
    while !matches!(connection.read(&mut rest).await, Ok(0) | Err(_)) {}
}

/// Sends a byte at a time until the other side has had enough.
pub(crate) async fn trickle(connection: TcpStream, bytes: &[u8], pace: std::time::Duration) {
    let (mut read, mut write) = connection.into_split();
    let sending = async {
        for byte in bytes.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(pace).await;
        }
    };
    tokio::select! { () = sending => {}, () = ended(&mut read) => {} }
}
