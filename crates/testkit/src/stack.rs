//! Owns the usual scene: one origin, one streamgate, one Envoy in front, and viewers.

use crate::gateway::{Gateway, Setup};
use crate::origin::Origin;
use crate::streamgate::{Setting, Streamgate};
use crate::viewers::Viewers;

/// Everything that is needed to watch.
#[derive(Debug)]
pub struct Stack {
    /// Clients of that Envoy.
    pub viewers: Viewers,
    /// The Envoy in front.
    pub gateway: Gateway,
    /// What counts the streams.
    pub streamgate: Streamgate,
    _origin: Origin,
}

impl Stack {
    /// The demo's stack, with these settings of streamgate's.
    pub async fn start(settings: &[Setting<'_>]) -> Self {
        Self::start_with(settings, |setup| setup).await
    }

    /// The same with changes to Envoy's configuration.
    pub async fn start_with(settings: &[Setting<'_>], change: impl FnOnce(Setup) -> Setup) -> Self {
        let origin = Origin::start().await;
        let streamgate = Streamgate::start(settings).await;
        let setup = Setup::demo(&[streamgate.grpc], origin.address);
        let gateway = change(setup).start().await;
        Self {
            viewers: Viewers::of(gateway.address),
            gateway,
            streamgate,
            _origin: origin,
        }
    }
}
