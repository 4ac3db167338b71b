//! Floods of HTTP/2 frames at the gRPC port: how much memory one connection can take, what remains
//! of it, and whether another gateway's checks are answered meanwhile. On the real binary, so that
//! the system counts its memory.

use std::time::Duration;

use bytes::Bytes;
use streamgate::clock::Stopwatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use testkit::frames::{self, Head};
use testkit::gateway_client::{Check, Gateway};
use testkit::streamgate::Streamgate;
use testkit::watch::{PATIENCE, measured, measured_memory, within};

/// How long floods are repeated, and how long one waits for streamgate to close the connection.
const FLOOD: Duration = Duration::from_secs(2);

/// How long one flood may take on a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

/// How many checks the other gateway makes alone, to compare with.
const ALONE: usize = 200;

/// How much memory one hostile connection may take: half of what `compose.yaml` gives the
/// container.
const PEAK: u64 = 128 * 1024;

/// How much of it may still be in use afterwards: what an allocator keeps for the next requests.
const REMAINS: u64 = 64 * 1024;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const ACCESS_LOGS: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// What became of a flood.
struct Outcome {
    /// Whether streamgate closed the connection, or refused what it was sent.
    was_closed: bool,
}

/// Sends that many waves, until streamgate closes the connection; then waits a while for it to do
/// so. Reads the answers unless `deaf`, which also makes it give up after a while, because
/// streamgate stops reading.
async fn pour(
    streamgate: &Streamgate,
    deaf: bool,
    waves: u32,
    mut wave: impl FnMut(u32) -> Vec<u8>,
) -> Outcome {
    let socket = TcpStream::connect(streamgate.grpc).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let writing = async {
        if write.write_all(&frames::hello()).await.is_err() {
            return true;
        }
        for number in 0..waves {
            if write.write_all(&wave(number)).await.is_err() {
                return true;
            }
        }
        tokio::time::sleep(FLOOD).await;
        false
    };
    let reading = async {
        let mut buffer = vec![0; 64 * 1024];
        if deaf {
            tokio::time::sleep(FLOOD).await;
            return false;
        }
        while read.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        true
    };
    let pouring = async {
        tokio::select! { closed = writing => closed, closed = reading => closed }
    };
    let was_closed = within(LONGEST, "a flood ends", pouring).await;
    Outcome { was_closed }
}

/// How long a check of the other gateway takes.
async fn one_check(gateway: &Gateway, number: usize) -> Duration {
    let asking = Stopwatch::start();
    let check = Box::pin(gateway.check(Check::of(&format!("user-{number}"), "r1")));
    let answer = within(PATIENCE, "another gateway's check is answered", check).await;
    assert!(answer.is_allowed(), "{answer:?}");
    asking.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs the flood on a streamgate of its own, along with another gateway's checks, and bounds its
/// memory.
async fn flood(what: &str, run: impl AsyncFn(&Streamgate) -> Outcome) -> Outcome {
    let streamgate = Streamgate::start_for_crowds(None).await;
    let gateway = Gateway::connect(streamgate.grpc).await;
    let mut alone = Vec::new();
    for number in 0..ALONE {
        alone.push(one_check(&gateway, number).await);
    }
    let (before, _) = streamgate.memory();
    let mut beside = Vec::new();
    let others = async {
        for number in ALONE.. {
            beside.push(one_check(&gateway, number).await);
        }
    };
    let flooding = async {
        let began = Stopwatch::start();
        loop {
            let outcome = run(&streamgate).await;
            if began.elapsed() >= FLOOD {
                return outcome;
            }
        }
    };
    let outcome = tokio::select! {
        outcome = flooding => outcome,
        () = others => panic!("they never end"),
    };
    let remains = || streamgate.memory().0.saturating_sub(before);
    // The connection is closed on this side now; whether its memory comes back has to be looked at.
    let waiting = Stopwatch::start();
    while remains() > REMAINS && waiting.elapsed() < PATIENCE {
        one_check(&gateway, 0).await;
    }
    let remains = remains();
    let peak = streamgate.memory().1.saturating_sub(before);
    println!(
        "measured: {what}: closed or refused by streamgate: {}",
        outcome.was_closed
    );
    measured_memory(&format!("{what}: peak"), peak * 1024);
    measured_memory(&format!("{what}: after"), remains * 1024);
    measured(&format!("{what}: check alone, median"), median(&mut alone));
    if !beside.is_empty() {
        measured(
            &format!("{what}: check beside it, median of {}", beside.len()),
            median(&mut beside),
        );
    }
    assert!(peak <= PEAK, "{what}: {peak} KiB at the peak");
    assert!(remains <= REMAINS, "{what}: {remains} KiB remain");
    one_check(&gateway, 1).await;
    outcome
}

/// The ids that a client has for its streams, from the first on.
fn stream_ids(wave: u32, count: u32) -> impl Iterator<Item = u32> {
    (wave * count..(wave + 1) * count).map(|number| 2 * number + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_open_streams_takes_bounded_memory() {
    let outcome = flood("open streams", async |streamgate| {
        let head = Head::post(CHECK).block();
        pour(streamgate, false, 100, |wave| {
            let ids = stream_ids(wave, 1000);
            ids.flat_map(|id| frames::headers(id, &head, false))
                .collect()
        })
        .await
    })
    .await;
    assert!(outcome.was_closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets_closes_the_connection() {
    let outcome = flood("resets", async |streamgate| {
        let head = Head::post(CHECK).block();
        pour(streamgate, false, 30, |wave| {
            let ids = stream_ids(wave, 10_000);
            ids.flat_map(|id| [frames::headers(id, &head, false), frames::reset(id)].concat())
                .collect()
        })
        .await
    })
    .await;
    assert!(outcome.was_closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_compressed_headers_takes_bounded_memory() {
    for reset in [false, true] {
        let outcome = flood(
            &format!("compressed headers, reset: {reset}"),
            async |streamgate| {
                let (first, repeated) = (Head::post(CHECK).with_indexed(3_900), Head::post(CHECK));
                let (first, repeated) = (first.block(), repeated.with_repeated(3).block());
                pour(streamgate, false, 60, |wave| {
                    let ids = stream_ids(wave, 1000);
                    let frames = ids.flat_map(|id| {
                        let block = if id == 1 { &first } else { &repeated };
                        let mut frames = frames::headers(id, block, false);
                        if reset {
                            frames.extend(frames::reset(id));
                        }
                        frames
                    });
                    frames.collect()
                })
                .await
            },
        )
        .await;
        assert!(outcome.was_closed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_never_end_take_bounded_memory() {
    for (what, path, each) in [
        ("access log messages", ACCESS_LOGS, 12),
        ("checks", CHECK, 3),
    ] {
        let outcome = flood(&format!("unfinished {what}"), async |streamgate| {
            let socket = TcpStream::connect(streamgate.grpc).await.unwrap();
            let (mut client, connection) = h2::client::Builder::new()
                .initial_max_send_streams(1000)
                .max_send_buffer_size(1 << 30)
                .handshake(socket)
                .await
                .unwrap();
            let mut tasks = JoinSet::new();
            tasks.spawn(async move { drop(connection.await) });
            let megabyte = Bytes::from(vec![0; 1 << 20]);
            let mut streams = Vec::new();
            for _ in 0..64 {
                let request = http::Request::post(format!("http://streamgate{path}"))
                    .header("content-type", "application/grpc")
                    .body(());
                let Ok((answer, mut frames)) = client.send_request(request.unwrap(), false) else {
                    break;
                };
                // One byte more than is sent, so that the message never ends.
                let length = each * (1_u32 << 20) + 1;
                let prefix = [&[0][..], &length.to_be_bytes()].concat();
                // The connection may be closed at any moment: then the answer is an error.
                let mut sent = frames.send_data(prefix.into(), false);
                for _ in 0..each {
                    sent = sent.and_then(|()| frames.send_data(megabyte.clone(), false));
                }
                drop(sent);
                streams.push((answer, frames));
            }
            // One is answered only if it is refused.
            let answers = streams.iter_mut().map(|(answer, _)| answer);
            let refused = futures_util::future::select_all(answers);
            let was_closed = tokio::time::timeout(PATIENCE, refused).await.is_ok();
            Outcome { was_closed }
        })
        .await;
        assert!(outcome.was_closed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_take_bounded_memory() {
    flood("unread answers of reflection", async |streamgate| {
        let head = Head::post(REFLECTION).block();
        // `file_containing_symbol`, of a file that is among the largest.
        let symbol = "envoy.config.core.v3.HeaderValueOption";
        let length = u8::try_from(symbol.len()).unwrap();
        let mut message = vec![0, 0, 0, 0, length + 2, 0x22, length];
        message.extend(symbol.as_bytes());
        pour(streamgate, true, 20, |wave| {
            let ids = stream_ids(wave, 500);
            let frames = ids.flat_map(|id| {
                let mut frames = frames::headers(id, &head, false);
                frames.extend(frames::data(id, &message.repeat(20)));
                frames
            });
            if wave < 20 {
                frames.collect()
            } else {
                Vec::new()
            }
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_small_frames_take_bounded_memory() {
    let wave = |frame: Vec<u8>| frame.repeat(2_000);
    for (what, deaf, bytes) in [
        ("pings", true, wave(frames::ping())),
        ("settings", true, wave(frames::settings())),
        ("window updates", false, wave(frames::window_update(1))),
        ("unknown frames", false, wave(frames::unknown())),
    ] {
        flood(what, async |streamgate| {
            pour(streamgate, deaf, 200, |_| bytes.clone()).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_list_without_end_closes_the_connection() {
    let outcome = flood("a header list without end", async |streamgate| {
        let head = Head::post(CHECK).block();
        let more = Head::literal("x-more", &"a".repeat(8_000));
        pour(streamgate, false, 10_000, |wave| match wave {
            0 => frames::headers_begun(1, &head),
            _ => frames::continuation(1, &more),
        })
        .await
    })
    .await;
    assert!(outcome.was_closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_data_frames_close_the_connection() {
    let outcome = flood("empty data frames", async |streamgate| {
        let head = Head::post(CHECK).block();
        pour(streamgate, false, 1_000, |wave| match wave {
            0 => frames::headers(1, &head, false),
            _ => frames::data(1, &[]).repeat(2_000),
        })
        .await
    })
    .await;
    assert!(outcome.was_closed);
}

#[tokio::test]
async fn authorities_that_are_no_host_names_are_counted_and_warned_about() {
    let streamgate = Streamgate::start(&[]).await;
    let names = ["outbound|50051||streamgate", "/run/streamgate.sock", ""];
    for (before, name) in names.iter().enumerate() {
        let mut socket = TcpStream::connect(streamgate.grpc).await.unwrap();
        let head = Head::post_to(name, CHECK).block();
        let request = [frames::hello(), frames::headers(1, &head, false)].concat();
        socket.write_all(&request).await.unwrap();
        let labels = [("port", "grpc"), ("error", "reset_protocol_error")];
        streamgate
            .metric_becomes("streamgate_http2_errors_total", &labels, |count| {
                count > before as f64
            })
            .await;
    }
    let told = "refused a malformed HTTP/2 request";
    streamgate.says(told).await;
    assert_eq!(streamgate.log().matches(told).count(), 1, "now and then");
}
