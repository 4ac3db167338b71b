//! No instance cuts short what another with longer leases granted, and ends are remembered as long
//! as the longest lease granted.

use super::*;

/// The terms of an instance that grants leases of that many seconds.
fn granting(lease: u64) -> Terms {
    Terms::new(seconds(lease), Duration::from_millis(50))
}

/// A viewer with one session, which an instance granted 60 s.
fn long() -> Viewer {
    let mut viewer = Viewer::limited_to(1);
    viewer.terms = granting(60);
    viewer.ask(&Start {
        lease: seconds(60),
        ..start("playback:long")
    });
    viewer
}

/// What an instance that grants 3 s does.
type Deed = fn(&mut Viewer);

#[test]
fn an_instance_with_short_leases_shortens_no_long_one() {
    let short_lease = |session| Start {
        lease: seconds(3),
        ..start(session)
    };
    let deeds: [(&str, Deed); 7] = [
        ("a refused start", |viewer| {
            let refused = viewer.admit("playback:other");
            assert_eq!(answer(&refused), "full");
        }),
        ("a start beside it", |viewer| {
            viewer.limit = 2;
            viewer.admit("playback:other");
        }),
        ("a sighting of another", |viewer| {
            viewer.renew("playback:other");
        }),
        ("its own renewal", |viewer| {
            viewer.renew("playback:long");
        }),
        ("its own repeated start", |viewer| {
            viewer.admit("playback:long");
        }),
        ("a success of it", |viewer| {
            viewer.played("playback:long");
        }),
        ("the end of another", |viewer| {
            viewer.release("playback:other", Ending::Stream);
        }),
    ];
    for (story, deed) in deeds {
        let mut viewer = long();
        let granted = viewer.session("playback:long").expires_at;
        viewer.wait(seconds(1));
        viewer.terms = granting(3);
        deed(&mut viewer);
        let expires_at = viewer.session("playback:long").expires_at;
        assert_eq!(expires_at, granted, "{story}");
        viewer.wait(seconds(50));
        viewer.limit = 1;
        let refused = viewer.ask(&short_lease("playback:late"));
        assert_eq!(answer(&refused), "full", "{story}");
    }
}

#[test]
fn an_instance_grants_no_more_than_its_own_longest_lease() {
    let mut viewer = Viewer::limited_to(1);
    viewer.terms = granting(3);
    viewer.admit("playback:a");
    let session = viewer.session("playback:a");
    assert_eq!(session.expires_at, viewer.now.after(seconds(3)));
}

#[test]
fn an_end_is_remembered_until_after_the_longest_running_lease() {
    let margin = Duration::from_millis(1_050);
    for (lease, waited, left) in [
        (3, 0, 60),
        (3, 20, 40),
        (3, 57, 3),
        (3, 58, 3),
        (30, 20, 40),
        (30, 40, 30),
    ] {
        for ends in ["itself", "a stranger", "a request"] {
            let mut viewer = long();
            viewer.wait(seconds(waited));
            viewer.terms = granting(lease);
            let session = match ends {
                "itself" => "playback:long",
                "a stranger" => "playback:stranger",
                _ => "request:stranger",
            };
            viewer.release(session, Ending::Stream);
            let until = viewer.now.after(seconds(left) + margin);
            let end = viewer.tombstone(session).unwrap();
            assert_eq!(end.until, until, "{ends} by {lease} s after {waited} s");
        }
    }
}

#[test]
fn a_displacement_is_remembered_beyond_the_lease_it_ended() {
    let mut viewer = long();
    viewer.terms = granting(3);
    viewer.when_full = WhenFull::DisplaceOldest;
    viewer.admit("playback:short");
    let end = viewer.tombstone("playback:long").unwrap();
    let until = viewer.now.after(Duration::from_millis(61_050));
    assert_eq!(end.until, until);
    viewer.wait(seconds(50));
    // The instance that granted 60 s has not heard of it.
    viewer.terms = granting(60);
    let renewal = viewer.renew("playback:long");
    assert!(matches!(renewal, Renewal::Ended(_)), "{renewal:?}");
}

#[test]
fn a_refusal_by_an_instance_with_short_leases_cuts_no_memory() {
    let mut viewer = long();
    viewer.release("playback:long", Ending::Operator);
    let until = viewer.tombstone("playback:long").unwrap().until;
    viewer.wait(seconds(1));
    viewer.terms = granting(3);
    assert_eq!(answer(&viewer.admit("playback:long")), "operator");
    assert_eq!(viewer.tombstone("playback:long").unwrap().until, until);
}

#[test]
fn a_refusal_prolongs_a_memory_by_the_longest_running_lease() {
    let mut viewer = long();
    viewer.release("playback:other", Ending::Operator);
    viewer.wait(seconds(20));
    viewer.terms = granting(3);
    viewer.renew("request:short");
    viewer.terms = granting(60);
    viewer.see(&Sighting {
        lease: seconds(60),
        ..sighting("playback:long")
    });
    viewer.terms = granting(3);
    assert_eq!(answer(&viewer.admit("playback:other")), "operator");
    let until = viewer.now.after(Duration::from_millis(61_050));
    assert_eq!(viewer.tombstone("playback:other").unwrap().until, until);
}

#[test]
fn the_margin_is_what_a_memory_has_beyond_the_longest_lease() {
    let expected = Duration::from_millis(1_050);
    assert_eq!(granting(3).margin(), expected);
    assert_eq!(granting(60).margin(), expected);
    let refilling = granting(3).refilling_every(seconds(2));
    assert_eq!(
        (refilling.refill, granting(3).refill),
        (seconds(2), seconds(3))
    );
    assert_eq!(refilling.memory, granting(3).memory);
}
