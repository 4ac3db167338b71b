//! Owns the usual scene: one origin, one streamgate, one Envoy in front, and viewers.

use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::streamgate::{Setting, Streamgate};
use crate::support::viewers::Viewers;

/// Everything that is needed to watch.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) viewers: Viewers,
    pub(crate) gateway: Gateway,
    pub(crate) streamgate: Streamgate,
    _origin: Origin,
}

impl Stack {
    /// The demo's stack, with these settings of streamgate's.
    pub(crate) async fn start(settings: &[Setting<'_>]) -> Self {
        Self::start_with(settings, |setup| setup).await
    }

    /// The same with changes to Envoy's configuration.
    pub(crate) async fn start_with(
        settings: &[Setting<'_>],
        change: impl FnOnce(Setup) -> Setup,
    ) -> Self {
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
