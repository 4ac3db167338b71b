//! What goes wrong: the store is slow, loses calls or answers, does what it said it could not, and
//! forgets; instances are killed, and settings change.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use streamgate::store::StoreError;
use streamgate::store::faulty::Fault;

use super::gateway::Limits;
use super::town::Town;

/// How a call fails.
fn any_failure(rng: &mut StdRng) -> Fault {
    let late = Duration::from_millis(rng.random_range(10..900));
    match rng.random_range(0..5) {
        0 => Fault::LosesAnswers,
        1 => Fault::LosesCalls,
        2 => Fault::ActsLate(late),
        3 => Fault::Errs(StoreError::Disconnected("it is gone".to_owned())),
        _ => Fault::Errs(StoreError::Rejected("it is loading".to_owned())),
    }
}

/// How calls fare for a while.
fn any_fault(rng: &mut StdRng) -> Fault {
    let slow = Duration::from_millis(rng.random_range(1..45));
    match rng.random_range(0..6) {
        0 => Fault::Takes(slow),
        1 => Fault::AnswersLate(slow),
        2 | 3 => Fault::Every(rng.random_range(2..20), Box::new(any_failure(rng))),
        _ => any_failure(rng),
    }
}

impl Town {
    /// Has things go wrong until the evening.
    pub(super) async fn weather(&self, mut rng: StdRng) {
        loop {
            let calm = [200, 3_000, 15_000, 40_000][rng.random_range(0..4)];
            let calm = Duration::from_millis(rng.random_range(0..calm));
            tokio::select! {
                biased;
                () = self.evening.cancelled() => return,
                () = tokio::time::sleep(calm) => {}
            }
            match rng.random_range(0..10) {
                0..=5 => self.fault(&mut rng).await,
                6 => {
                    let users = self.names.len();
                    let lost: Vec<usize> = match rng.random_range(0..2) {
                        0 => (0..users).collect(),
                        _ => vec![rng.random_range(0..users)],
                    };
                    self.log(&format!("the store forgets {lost:?}"));
                    self.forget(&lost);
                }
                7 => {
                    let gateway = self.any_gateway(&mut rng);
                    let limits = Limits::any(&mut rng);
                    self.log(&format!("{gateway} is killed, and starts with {limits:?}"));
                    self.restart(gateway, limits, &mut rng);
                }
                _ => {
                    let limits = Limits::any(&mut rng);
                    self.log(&format!("settings: {limits:?}"));
                    let gateways = self.state().gateways.len();
                    for gateway in 0..gateways {
                        self.change(gateway, limits);
                        tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
                    }
                }
            }
        }
    }

    /// Some instances fare badly for a while.
    async fn fault(&self, rng: &mut StdRng) {
        let fault = any_fault(rng);
        let gateways = self.state().gateways.len();
        let those: Vec<usize> = match rng.random_range(0..3) {
            0 => (0..gateways).collect(),
            1 => vec![rng.random_range(0..gateways)],
            _ => (0..gateways).filter(|_| rng.random_bool(0.5)).collect(),
        };
        let lasting = [400, 4_000, 12_000, 50_000][rng.random_range(0..4)];
        let lasting = Duration::from_millis(rng.random_range(50..lasting));
        self.log(&format!("{those:?} for {lasting:?}: {fault:?}"));
        self.fare(&those, &fault);
        self.state().tally.faults += 1;
        tokio::select! {
            biased;
            () = self.evening.cancelled() => {}
            () = tokio::time::sleep(lasting) => {}
        }
        self.log(&format!("{those:?} fare well"));
        self.fare(&those, &Fault::None);
    }

    /// How these instances fare from now on.
    fn fare(&self, those: &[usize], fault: &Fault) {
        let (now, mut state) = (self.now(), self.state());
        for number in those {
            state.gateways[*number].fares(fault, now);
        }
    }

    /// One of the instances.
    pub(super) fn any_gateway(&self, rng: &mut StdRng) -> usize {
        rng.random_range(0..self.state().gateways.len())
    }
}
