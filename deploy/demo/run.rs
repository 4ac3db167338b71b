//! `demo run` and `demo backend`: what runs until somebody ends it.

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::backend::{self, Media};
use crate::cli::{BackendArgs, Parts, RunArgs, StoreChoice};
use crate::failure::{Doing, Failure};
use crate::ports::{Ports, loopback};
use crate::stack::Stack;

/// Starts the stack, says what to try, and stays until a signal comes or something dies.
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
    let outcome = tokio::select! {
        failure = stack.died() => Err(failure),
        () = asked_to_end.wait() => Ok(()),
    };
    println!("\nEnding what was started.");
    stack.end().await;
    outcome
}

/// Serves the backend alone.
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
    backend::serve(listener, media, async move { asked_to_end.wait().await })
        .await
        .doing(|| "serve the clip".to_owned())
}

/// Asks the backend that runs there whether it serves.
pub(crate) async fn ask_backend(args: BackendArgs) -> Result<(), Failure> {
    let url = format!("http://{}/healthz", loopback(args.listen.port()));
    let answer = reqwest::get(&url).await.doing(|| format!("ask {url}"))?;
    let good = answer.error_for_status();
    good.map(|_| ()).doing(|| format!("be content with {url}"))
}

/// Ctrl-C and SIGTERM, listened for from before anything is started.
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
Ready. A user may watch three streams at once; they are counted {store}. In another terminal:

  Three live streams of alice, in the background:
    for n in 1 2 3; do curl -sN -o /dev/null -H 'x-user-id: alice' {gateway}/live/$n & done

  A fourth is refused with 429, and told which three hold the slots:
    curl -i -m 5 -H 'x-user-id: alice' {gateway}/live/4

  End one of them, and the fourth gets in at once (five seconds of video):
    kill %1; curl -sN -m 5 -o /dev/null -w '%{{http_code}} %{{size_download}} bytes\n' -H 'x-user-id: alice' {gateway}/live/4

  HLS: many requests with one playback id are one stream; without an id it is 400:
    curl -i -H 'x-user-id: bob' -H 'x-playback-session-id: tv-1' {gateway}/vod/demo/index.m3u8
    ffplay -headers $'x-user-id: bob\r\nx-playback-session-id: tv-2\r\n' {gateway}/vod/demo/index.m3u8

  A player that stops says so, and its slot is free at once:
    curl -i -H 'content-type: application/json' -d '{{"user": "bob", "session": "tv-1"}}' {api}/v1/release

  Whoever is not behind Envoy uses the same count over HTTP. A browser's app starts; who watches; and one of them is ended:
    curl -s -X PUT {api}/v1/users/bob/sessions/app-1
    curl -s {api}/v1/users/bob/sessions
    curl -s -X DELETE {api}/v1/users/bob/sessions/app-1

  A WebSocket is one stream for as long as it is open (ten seconds of ticks):
    curl -sN -m 10 --http1.1 -H 'connection: upgrade' -H 'upgrade: websocket' -H 'sec-websocket-version: 13' -H 'sec-websocket-key: c3RyZWFtZ2F0ZSBkZW1vIQ==' -H 'x-user-id: carol' {gateway}/ws --output -

  What streamgate has decided so far:
    curl -s {api}/metrics | grep streamgate_checks_total

Ctrl-C ends it all.
"#
    )
}
