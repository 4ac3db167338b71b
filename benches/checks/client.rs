//! A client that costs little: tonic's takes longer for a check than the servers do, so that they
//! are always ahead of it. It makes checks as Envoy does: a HEADERS frame with indexed fields and a
//! DATA frame that ends the stream, over several connections. Or it asks Envoy as players do.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hdrhistogram::Histogram;
use streamgate::clock::Stopwatch;

use super::request::{Sender, Template};

/// The headers of a check after its method and scheme, in the order in which they are sent.
const FIELDS: [(&str, &str); 6] = [
    (":path", "/envoy.service.auth.v3.Authorization/Check"),
    (":authority", "streamgate"),
    ("te", "trailers"),
    ("grpc-timeout", "200m"),
    ("content-type", "application/grpc"),
    ("user-agent", "envoy"),
];

/// `:method POST` and `:scheme http` in the static table.
const STATIC_FIELDS: [u8; 2] = [0x83, 0x86];

/// The size of the static table: the newest entry of the dynamic one comes after it.
const STATIC_TABLE: usize = 61;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much the window of a connection is raised by at a time.
const WINDOW: u32 = 1 << 30;

/// How long nothing happens before the client looks again, while it makes checks at a pace.
const NAP: Duration = Duration::from_micros(20);

/// How many checks may be unanswered at a pace: fewer than the streams that a server takes over one
/// connection. A check that is made late for it counts from when it should have been made.
const UNANSWERED: usize = 160;

/// The longest time that a histogram can record, in nanoseconds, and its significant digits.
const LONGEST: (u64, u8) = (60_000_000_000, 3);

/// How many checks are made, and when.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// How many.
    pub(crate) count: usize,
    /// How many are under way at one time.
    at_one_time: usize,
    /// How long after one the next is made, whether or not the ones before are answered, as long as
    /// they aren't too many.
    pace: Option<Duration>,
}

impl Load {
    /// One after the other, so many at one time.
    pub(crate) const fn in_turn(count: usize, at_one_time: usize) -> Self {
        Self {
            count,
            at_one_time,
            pace: None,
        }
    }

    /// At an even pace.
    pub(crate) const fn paced(count: usize, pace: Duration) -> Self {
        Self {
            count,
            at_one_time: UNANSWERED,
            pace: Some(pace),
        }
    }
}

/// The answers.
pub(crate) struct Told {
    /// How many have come.
    count: usize,
    /// How many were let in.
    pub(crate) allowed: usize,
    /// How many nanoseconds each took from when it should have been made.
    pub(crate) took: Histogram<u64>,
}

/// A histogram of times.
pub(crate) fn times() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST.0, LONGEST.1).unwrap()
}

impl Told {
    /// No answer yet.
    fn none() -> Self {
        Self {
            count: 0,
            allowed: 0,
            took: times(),
        }
    }

    /// Takes an answer's end in.
    fn ended(&mut self, took: Duration) {
        self.count += 1;
        let nanos = u64::try_from(took.as_nanos()).unwrap();
        self.took.saturating_record(nanos);
    }
}

/// The connections of a gateway.
pub(crate) struct Client {
    connections: Vec<Connection>,
    template: Template,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, connections: usize, template: Template) -> Self {
        let connections = (0..connections).map(|_| Connection::open(address, template.sender));
        Self {
            connections: connections.collect(),
            template,
        }
    }

    /// Makes checks; `check` says which viewer's and playback's each is.
    pub(crate) fn run(&mut self, load: &Load, check: impl Fn(usize) -> (usize, usize)) -> Told {
        let (began, mut made, mut told) = (Stopwatch::start(), 0, Told::none());
        while told.count < load.count {
            let due = load.pace.map_or(load.count, |pace| {
                let due = began.elapsed().as_nanos() / pace.as_nanos();
                usize::try_from(due).unwrap() + 1
            });
            let room = told.count.saturating_add(load.at_one_time);
            let until = due.min(load.count).min(room);
            while made < until {
                let intended = load.pace.map_or_else(
                    || began.elapsed(),
                    |pace| pace * u32::try_from(made).unwrap(),
                );
                let turn = made % self.connections.len();
                self.connections[turn].ask(&self.template, check(made), intended);
                made += 1;
            }
            let mut is_idle = true;
            for connection in &mut self.connections {
                connection.send();
                is_idle &= !connection.receive(began, &mut told);
            }
            if is_idle {
                std::thread::sleep(NAP);
            }
        }
        told
    }
}

/// One connection.
struct Connection {
    /// Who the client is.
    sender: Sender,
    socket: TcpStream,
    /// The bytes to send.
    out: Vec<u8>,
    /// What has come and is not whole yet.
    input: Vec<u8>,
    /// When each stream should have begun, from the beginning of the run.
    begun: Vec<Duration>,
    /// How many bytes of answers have come since the window was raised.
    since_raised: u32,
}

impl Connection {
    fn open(address: SocketAddr, sender: Sender) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut out = PREFACE.to_vec();
        frame(&mut out, 4, 0, 0, &[]);
        frame(&mut out, 8, 0, 0, &(WINDOW - 1).to_be_bytes());
        Self {
            sender,
            socket,
            out,
            input: Vec::new(),
            begun: Vec::new(),
            since_raised: 0,
        }
    }

    /// Writes a check, which [`Self::send`] sends.
    fn ask(&mut self, template: &Template, check: (usize, usize), intended: Duration) {
        let stream = u32::try_from(2 * self.begun.len() + 1).unwrap();
        let size = u32::try_from(template.size()).unwrap();
        match self.sender {
            Sender::Envoy => {
                let block = if self.begun.is_empty() {
                    first_block()
                } else {
                    later_block()
                };
                frame(&mut self.out, 1, 4, stream, &block);
                frame_head(&mut self.out, 0, 1, stream, 5 + size);
                self.out.push(0);
                self.out.extend_from_slice(&size.to_be_bytes());
            }
            Sender::Player => frame_head(&mut self.out, 1, 5, stream, size),
        }
        template.write(check, &mut self.out);
        self.begun.push(intended);
    }

    /// Sends what was written.
    fn send(&mut self) {
        let mut rest = &*self.out;
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        self.out.clear();
    }

    /// Reads what has come. Returns whether anything has.
    fn receive(&mut self, began: Stopwatch, told: &mut Told) -> bool {
        let mut buffer = [0; 64 * 1024];
        let count = match self.socket.read(&mut buffer) {
            Ok(0) => panic!("the server has closed the connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        };
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(&buffer[..count]);
        let (mut rest, now) = (&*input, began.elapsed());
        while let Some((head, after)) = rest.split_at_checked(9)
            && let length = u32::from_be_bytes([0, head[0], head[1], head[2]])
            && let Some((payload, after)) = after.split_at_checked(length as usize)
        {
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.take((head[3], head[4], stream), payload, now, told);
            rest = after;
        }
        self.input = rest.to_vec();
        true
    }

    /// Takes the end of a stream in.
    fn ended(&self, stream: u32, now: Duration, told: &mut Told) {
        let begun = self.begun[stream as usize / 2];
        told.ended(now.saturating_sub(begun));
    }

    /// Takes one frame in: its kind, its flags and its stream.
    fn take(
        &mut self,
        (kind, flags, stream): (u8, u8, u32),
        payload: &[u8],
        now: Duration,
        told: &mut Told,
    ) {
        match (kind, flags & 1) {
            (0, 1) if self.sender == Sender::Player => self.ended(stream, now, told),
            (0, is_last) => {
                assert_eq!(is_last, 0, "trailers follow, or it was no message");
                // After its prefix a message that lets somebody in begins with an empty status.
                told.allowed += usize::from(payload.get(5..7) == Some(&[0x0a, 0]));
                self.since_raised += u32::try_from(payload.len()).unwrap();
                if self.since_raised > WINDOW / 2 {
                    let raise = std::mem::take(&mut self.since_raised);
                    frame(&mut self.out, 8, 0, 0, &raise.to_be_bytes());
                }
            }
            (1, is_last) => {
                // A player's answer begins with `:status 200` if it was let in.
                let is_allowed = self.sender == Sender::Player && payload.first() == Some(&0x88);
                told.allowed += usize::from(is_allowed);
                if is_last == 1 {
                    self.ended(stream, now, told);
                }
            }
            (4, 0) => frame(&mut self.out, 4, 1, 0, &[]),
            (6, 0) => frame(&mut self.out, 6, 1, 0, payload),
            (3 | 7, _) => panic!("a stream or the connection was refused"),
            _ => {}
        }
    }
}

/// The fields of the first check, which the server remembers.
fn first_block() -> Vec<u8> {
    let mut block = STATIC_FIELDS.to_vec();
    for (name, value) in FIELDS {
        block.push(0x40);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The same by their numbers; the newest has the lowest.
fn later_block() -> Vec<u8> {
    let numbers = (0..FIELDS.len()).rev().map(|n| STATIC_TABLE + 1 + n);
    let indexed = numbers.map(|number| 0x80 | u8::try_from(number).unwrap());
    STATIC_FIELDS.into_iter().chain(indexed).collect()
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap();
    frame_head(out, kind, flags, stream, length);
    out.extend_from_slice(payload);
}

fn frame_head(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: u32) {
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}
