//! ```text
//!   a connection comes  ->  a place is free: it has it
//!                           all are taken:   who has its answer, and has asked for nothing for longest, gives way,
//!                                            and it has that place
//! ```
//! The places of a server for connections at once.
//!
//! Promise: whoever comes is let in at once, so that slow clients, and those that only hold on to what they have, keep
//! nobody out; and there are never more connections than places.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Who came has so long to ask before it gives way to those who come after it. Others that ask again and again, and read
/// nothing, would else push out a probe between its coming and its asking.
const TIME_TO_ASK: Duration = Duration::from_secs(1);

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    HasCome,
    IsAnswered,
    WasServed,
}

/// One connection.
pub(super) struct Place {
    /// When it came, or asked last.
    asked: Cell<Instant>,
    stage: Cell<Stage>,
    gives_way: Notify,
}

impl Place {
    /// It asks for something.
    pub(super) fn asks(&self) {
        self.asked.set(Instant::now());
        self.stage.set(Stage::IsAnswered);
    }

    /// Its answer is made; it may take its time to read it.
    pub(super) fn is_served(&self) {
        self.stage.set(Stage::WasServed);
    }

    /// When it came, or asked last.
    pub(super) fn asked(&self) -> Instant {
        self.asked.get()
    }

    /// Its client cannot be blamed for waiting: it is the last to give way.
    fn is_waiting(&self) -> bool {
        match self.stage.get() {
            Stage::HasCome => self.asked.get().elapsed() < TIME_TO_ASK,
            Stage::IsAnswered => true,
            Stage::WasServed => false,
        }
    }

    /// Waits until the place is wanted for somebody else.
    pub(super) async fn is_wanted(&self) {
        self.gives_way.notified().await;
    }
}

/// So many at most, in the order in which they came.
pub(super) struct Places {
    most: usize,
    taken: RefCell<Vec<Rc<Place>>>,
}

impl Places {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, taken: RefCell::new(Vec::new()) }
    }

    /// A place for one that comes. It has to be given back by [`Places::leave`].
    pub(super) fn enter(&self) -> Rc<Place> {
        if self.taken.borrow().len() >= self.most {
            self.have_one_give_way();
        }
        let place = Rc::new(Place {
            asked: Cell::new(Instant::now()),
            stage: Cell::new(Stage::HasCome),
            gives_way: Notify::new(),
        });
        self.taken.borrow_mut().push(Rc::clone(&place));
        place
    }

    /// Has the one leave that has asked for nothing for longest: rather one that waits for nothing.
    pub(super) fn have_one_give_way(&self) {
        let mut taken = self.taken.borrow_mut();
        let longest = taken.iter().enumerate().min_by_key(|(_, place)| (place.is_waiting(), place.asked.get()));
        if let Some((at, _)) = longest {
            taken.remove(at).gives_way.notify_one();
        }
    }

    /// Gives a place back.
    pub(super) fn leave(&self, place: &Rc<Place>) {
        self.taken.borrow_mut().retain(|taken| !Rc::ptr_eq(taken, place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_place(places: &Places, wanted: &Rc<Place>) -> bool {
        places.taken.borrow().iter().any(|place| Rc::ptr_eq(place, wanted))
    }

    #[test]
    fn who_has_asked_for_nothing_for_longest_gives_way() {
        let places = Places::new(3);
        let [first, second, third] = [places.enter(), places.enter(), places.enter()];
        // The first two are busy: one is still being answered, one has its answer and does not go.
        first.asks();
        second.asks();
        second.is_served();
        third.asked.set(Instant::now() - TIME_TO_ASK);
        let fourth = places.enter();
        assert!(!has_place(&places, &third), "the third never asked");
        places.leave(&fourth);
        let _fifth = places.enter();
        let _sixth = places.enter();
        assert_eq!(places.taken.borrow().len(), 3);
        assert!(has_place(&places, &first), "who is being answered is the last to go");
        assert!(!has_place(&places, &second));
    }

    #[test]
    fn who_has_just_come_is_not_pushed_out_by_those_who_ask_again_and_again() {
        let places = Places::new(3);
        let [first, second] = [places.enter(), places.enter()];
        let probe = places.enter();
        for greedy in [&first, &second] {
            greedy.asks();
            greedy.is_served();
        }
        let next = places.enter();
        assert!(has_place(&places, &probe) && has_place(&places, &next));
        assert!(!has_place(&places, &first), "it has had an answer");
    }
}
