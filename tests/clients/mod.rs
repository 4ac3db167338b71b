//! The clients in `docs/clients/`, run as they stand.

// The page and its module in a real Chromium.
mod browser;
// The cookie of ours in that Chromium.
mod cookie;
// Serves that page.
mod pages;
// The service that they talk to.
mod scene;
// curl, Python and Node.
mod scripts;
// What a page's WebSocket tells of a refusal.
mod websocket;
// Problems, explained in other words.
mod words;
