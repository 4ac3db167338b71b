//! Ports for servers that can't be handed a socket, that are down for a while, or that never come.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A port that the system gives to no other process while this lives, on any address: a socket is
/// bound to it and doesn't listen. A server that gets its number can still listen there, since it
/// sets `SO_REUSEADDR` as servers do. Until one does, connections are refused.
#[derive(Debug)]
pub struct ReservedPort {
    address: SocketAddr,
    _holder: Socket,
}

/// A port that swallows what is sent to it.
#[derive(Debug)]
pub struct SwallowingPort {
    _listener: Socket,
    _filling: Vec<TcpStream>,
}

/// After how long without an answer a queue of connections is full: on this machine, an answer
/// takes microseconds, and the first repetition comes after a second.
const FULL_AFTER: Duration = Duration::from_millis(200);

impl ReservedPort {
    /// Reserves an unused port.
    pub fn reserve() -> Self {
        let holder = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        holder.set_reuse_address(true).unwrap();
        // All addresses: on one alone, another server could get the same port on another address,
        // and a server that is to listen on all would fail.
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        holder.bind(&any.into()).unwrap();
        let port = holder.local_addr().unwrap().as_socket().unwrap().port();
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            _holder: holder,
        }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.address.port()
    }

    /// Has it swallow what is sent to it, as the address of a host does that is gone: nobody
    /// refuses connections and nobody accepts them. While this lives, no server can listen there.
    pub fn swallow(&self) -> SwallowingPort {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&self.address.into()).unwrap();
        listener.listen(0).unwrap();
        let mut filling = Vec::new();
        // Connections that nobody accepts fill its queue; then the system drops what comes.
        while let Ok(one) = TcpStream::connect_timeout(&self.address, FULL_AFTER) {
            filling.push(one);
        }
        SwallowingPort {
            _listener: listener,
            _filling: filling,
        }
    }

    /// Where a server on it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_swallows_neither_refuses_nor_accepts() {
        let reserved = ReservedPort::reserve();
        let swallowing = reserved.swallow();
        let unanswered = TcpStream::connect_timeout(&reserved.address(), FULL_AFTER).unwrap_err();
        assert_eq!(unanswered.kind(), ErrorKind::TimedOut);
        drop(swallowing);
        let refused = TcpStream::connect(reserved.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn nobody_else_gets_a_reserved_port_and_its_server_does_again_and_again() {
        let reserved = ReservedPort::reserve();
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let taken = other.bind(&reserved.address().into()).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        for _ in 0..2 {
            let refused = TcpStream::connect(reserved.address()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let server = TcpListener::bind(reserved.address()).unwrap();
            TcpStream::connect(reserved.address()).unwrap();
            drop(server);
        }
    }
}
