//! Real players, unmodified, through a real Envoy with the shipped files: which source tells each of them as one playback, and what a reload,
//! a seek, a long pause and another network do. `envoy/README.md` has a table of it, "A source per player", whose rows name these tests.

// ffmpeg and ffplay.
mod ffmpeg;
// GStreamer.
mod gstreamer;
// hls.js in Chromium.
mod hls_js;
// Ten minutes of video.
mod media;
// Chromium's own HLS.
mod native;
// One file and ranges of it: curl, and `<video>`.
mod progressive;
// What was asked of the gateway, as its access log tells.
mod requests;
// The viewers' site.
mod site;
// The gateway and all around it.
mod stage;
// Requests as others have recorded them, of players that don't run here.
mod traces;
// VLC.
mod vlc;
