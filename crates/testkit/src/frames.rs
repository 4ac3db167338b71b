//! Owns writing HTTP/2 by hand, for what a client library refuses to send.

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What a client begins with.
pub fn hello() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings()].concat()
}

/// Settings that change nothing.
pub fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

/// Asks for a sign of life.
pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[0; 8])
}

/// Lets the other side send that many bytes more.
pub fn window_update(by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, 0, &by.to_be_bytes())
}

/// A frame of an undefined type.
pub fn unknown() -> Vec<u8> {
    frame(0xbf, 0, 0, &[0; 8])
}

/// A whole header list.
pub fn headers(stream: u32, block: &[u8], is_last: bool) -> Vec<u8> {
    let end = if is_last { END_STREAM } else { 0 };
    frame(HEADERS, END_HEADERS | end, stream, block)
}

/// The beginning of a header list that [`continuation`]s continue.
pub fn headers_begun(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, 0, stream, block)
}

/// The rest of a header list, or a part of it.
pub fn continuation(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(CONTINUATION, 0, stream, block)
}

/// A part of a message's body.
pub fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, payload)
}

/// Takes a request back.
pub fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: u32 = 8;
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// The header block of a gRPC request.
#[derive(Debug)]
pub struct Head(Vec<u8>);

impl Head {
    /// One to that path, at the authority `streamgate`.
    pub fn post(path: &str) -> Self {
        Self::post_to("streamgate", path)
    }

    /// One to that path, at that authority.
    pub fn post_to(authority: &str, path: &str) -> Self {
        // `:method: POST` and `:scheme: http` are in the static table, as are the names of the
        // others.
        let mut block = vec![0x83, 0x86, 0x04];
        block.extend(string(path));
        block.push(0x01);
        block.extend(string(authority));
        block.extend([0x0f, 0x10]);
        block.extend(string("application/grpc"));
        Self(block)
    }

    /// Adds a header of that size that the other side has to remember.
    pub fn with_indexed(mut self, size: usize) -> Self {
        self.0.push(0x40);
        self.0.extend(string("x"));
        self.0.extend(string(&"a".repeat(size)));
        self
    }

    /// Adds the header that was remembered last, so many times.
    pub fn with_repeated(mut self, times: usize) -> Self {
        self.0.extend(vec![0xbe; times]);
        self
    }

    /// A header of its own.
    pub fn literal(name: &str, value: &str) -> Vec<u8> {
        [vec![0], string(name), string(value)].concat()
    }

    /// The bytes of the block.
    pub fn block(self) -> Vec<u8> {
        self.0
    }
}

/// A string as HPACK writes it, without Huffman's code.
fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    match text.len() {
        short @ 0..127 => bytes.push(u8::try_from(short).unwrap()),
        long => {
            bytes.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128 + 128).unwrap());
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).unwrap());
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}
