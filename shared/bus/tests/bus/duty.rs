//! A role whose work fails and panics, and a standby that takes the role over.

use crate::{Broker, soon};
use push0_bus::{Bus, BusError, Duty, Failure, Leadership};
use std::{
    cell::RefCell,
    convert::Infallible,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How each session of a scripted work begins.
#[derive(Clone, Copy)]
enum Begin {
    Fails,
    Panics,
    Serves,
}

/// Work with a given beginning, which writes down every word told. The last way to begin is repeated.
struct Scripted {
    begins: RefCell<Vec<Begin>>,
    told: RefCell<Vec<(String, Instant)>>,
    news: Notify,
}

impl Scripted {
    fn new(begins: &[Begin]) -> Self {
        Self {
            begins: RefCell::new(begins.iter().rev().copied().collect()),
            told: RefCell::default(),
            news: Notify::new(),
        }
    }

    fn tell(&self, what: impl Into<String>) {
        self.told.borrow_mut().push((what.into(), Instant::now()));
        self.news.notify_one();
    }

    fn words(&self) -> Vec<String> {
        self.told.borrow().iter().map(|(what, _)| what.clone()).collect()
    }

    /// Waits until the work was told this.
    async fn hears(&self, what: &str) {
        soon(async {
            while !self.words().iter().any(|told| told == what) {
                self.news.notified().await;
            }
        })
        .await;
    }
}

impl Duty for Scripted {
    type State<'a> = ();

    async fn start(&self) -> Result<(), BusError> {
        let mut begins = self.begins.borrow_mut();
        let begin = if begins.len() > 1 {
            begins.pop()
        } else {
            begins.last().copied()
        };
        match begin {
            Some(Begin::Fails) => Err(BusError::Interrupted),
            Some(Begin::Panics) => unreachable!("a panic, as the test wants"),
            Some(Begin::Serves) | None => Ok(()),
        }
    }

    async fn serve(&self, (): ()) -> Result<Infallible, BusError> {
        std::future::pending().await
    }

    fn leads(&self, leads: bool) {
        self.tell(if leads { "leads" } else { "ceases" });
    }

    fn is_well(&self) {
        self.tell("well");
    }

    fn failed(&self, failure: &Failure) {
        self.tell(match failure {
            Failure::Bus(_) => "failed",
            Failure::Panic => "panicked",
        });
    }
}

fn candidate(bus: &Bus) -> Leadership {
    Leadership::candidate(bus, "tester")
}

#[tokio::test]
async fn work_that_fails_or_panics_begins_anew_and_counts_as_well_after_a_while() {
    let broker = Broker::start().await;
    let work = Scripted::new(&[Begin::Fails, Begin::Panics, Begin::Serves]);
    let candidate = candidate(&broker.bus);
    tokio::select! {
        never = candidate.lead(&work) => match never {},
        () = work.hears("well") => {}
    }
    let expected = [
        "leads", "ceases", "failed", "leads", "ceases", "panicked", "leads", "well",
    ];
    assert_eq!(work.words(), expected);
    let at = |word| {
        let told = work.told.borrow();
        told.iter()
            .rev()
            .find(|(what, _)| what == word)
            .map(|(_, at)| *at)
    };
    let lasted = at("well").zip(at("leads")).map(|(well, leads)| well - leads);
    assert!(lasted >= Some(Duration::from_secs(2)), "{lasted:?}");
}

#[tokio::test]
async fn a_standby_is_well_and_leads_once_the_leader_is_gone() {
    let broker = Broker::start().await;
    let (first, second) = (Scripted::new(&[Begin::Serves]), Scripted::new(&[Begin::Serves]));
    let (one, two) = (candidate(&broker.bus), broker.another().await);
    let two = candidate(&two);
    {
        let mut leader = std::pin::pin!(one.lead(&first));
        tokio::select! {
            never = &mut leader => match never {},
            () = first.hears("well") => {}
        }
        let standby = async {
            tokio::select! {
                never = two.lead(&second) => match never {},
                () = second.hears("well") => {}
            }
        };
        tokio::select! {
            never = &mut leader => match never {},
            () = standby => {}
        }
    }
    assert_eq!(second.words(), ["well"], "a standby does not lead");
    tokio::select! {
        never = two.lead(&second) => match never {},
        () = second.hears("leads") => {}
    }
}
