//! `demo run` and `demo backend`: commands that run until you end them.

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use video_backend::Media;

use crate::cli::{BackendArgs, Parts, RunArgs, StoreChoice};
use crate::events::Events;
use crate::failure::{Doing, Failure};
use crate::ports::{Ports, loopback};
use crate::stack::Stack;

/// Starts the stack, prints what to try, and reports events until a signal arrives or something
/// dies.
pub(crate) async fn run(args: RunArgs) -> Result<(), Failure> {
    let mut asked_to_end = AskedToEnd::listen()?;
    let ports = Ports::asked(&args)?;
    let logs = args.parts.logs.join(format!("run-{}", ports.gateway));
    println!(
        "Starting the video backend, streamgate and Envoy; their logs are in {}",
        logs.display()
    );
    let mut stack = tokio::select! {
        stack = Stack::start(&args.parts, ports, &logs) => stack?,
        () = asked_to_end.wait() => return Ok(()),
    };
    print!("{}", what_to_try(&args.parts, ports));
    let events = Events::of(ports, &logs)?;
    let outcome = tokio::select! {
        biased;
        failure = stack.died() => Err(failure),
        outcome = events.tell() => outcome.map(|never| match never {}),
        () = asked_to_end.wait() => Ok(()),
    };
    println!("\nEnding what was started.");
    stack.end().await;
    outcome
}

/// Serves only the backend.
pub(crate) async fn backend(args: BackendArgs) -> Result<(), Failure> {
    let mut asked_to_end = AskedToEnd::listen()?;
    let media = Media::load(&args.media).doing(|| "read the clip".to_owned())?;
    let listener = TcpListener::bind(args.listen)
        .await
        .doing(|| format!("listen on {}", args.listen))?;
    let address = listener
        .local_addr()
        .doing(|| "ask for the backend's port".to_owned())?;
    println!("The video backend listens on {address}");
    video_backend::serve(listener, media, async move { asked_to_end.wait().await })
        .await
        .doing(|| "serve the clip".to_owned())
}

/// Asks a running backend whether it serves.
pub(crate) async fn ask_backend(args: BackendArgs) -> Result<(), Failure> {
    let url = format!("http://{}/healthz", loopback(args.listen.port()));
    let answer = reqwest::get(&url).await.doing(|| format!("ask {url}"))?;
    let good = answer.error_for_status();
    good.map(|_| ()).doing(|| format!("be content with {url}"))
}

/// Ctrl-C and SIGTERM, caught before anything is started.
#[derive(Debug)]
pub(crate) struct AskedToEnd {
    interrupt: Signal,
    terminate: Signal,
}

impl AskedToEnd {
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).doing(|| "listen for Ctrl-C".to_owned())?,
            terminate: signal(SignalKind::terminate()).doing(|| "listen for SIGTERM".to_owned())?,
        })
    }

    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn what_to_try(parts: &Parts, ports: Ports) -> String {
    let gateway = format!("http://127.0.0.1:{}", ports.gateway);
    let api = format!("http://127.0.0.1:{}", ports.http);
    let store = match parts.store {
        StoreChoice::Memory => "in memory".to_owned(),
        StoreChoice::Redis => format!("in a Redis on port {}", ports.redis),
    };
    format!(
        r#"
Ready. Open {gateway}/ in a browser: four players of one account, three of which may play.

A user may watch three streams at once; they are counted {store}. In another terminal:

  Three live streams of bob, one minute each, in the background:
    for n in 1 2 3; do curl -sN -m 60 -o /dev/null -H 'x-user-id: bob' {gateway}/live/$n & done; sleep 1

  A fourth is refused with 429, and the answer says which three hold the slots:
    curl -i -m 5 -H 'x-user-id: bob' {gateway}/live/4

  End one of them, and the fourth gets in at once (five seconds of video):
    kill %1; curl -sN -m 5 -o /dev/null -w '%{{http_code}} %{{size_download}} bytes\n' -H 'x-user-id: bob' {gateway}/live/4

  HLS: all requests with one playback id are one stream. Without an id the answer is 400:
    curl -i -m 5 -H 'x-user-id: carol' -H 'x-playback-session-id: tv-1' {gateway}/vod/demo/index.m3u8

  A player that stops says so, and its slot is free at once:
    curl -i -m 5 -H 'content-type: application/json' -d '{{"user": "carol", "session": "tv-1"}}' {api}/v1/release

  An app that isn't behind Envoy uses the same count over HTTP. It starts; who watches; it ends:
    curl -s -m 5 -X PUT {api}/v1/users/carol/sessions/app-1
    curl -s -m 5 {api}/v1/users/carol/sessions
    curl -s -m 5 -X DELETE {api}/v1/users/carol/sessions/app-1

  A WebSocket is one stream for as long as it is open (five seconds of ticks):
    curl -sN -m 5 --http1.1 -H 'connection: upgrade' -H 'upgrade: websocket' -H 'sec-websocket-version: 13' -H 'sec-websocket-key: c3RyZWFtZ2F0ZSBkZW1vIQ==' -H 'x-user-id: dave' {gateway}/ws --output -

  What streamgate has decided so far:
    curl -s -m 5 {api}/metrics | grep streamgate_checks_total

Ctrl-C ends it all. What happens from now on:

"#
    )
}
