//! Who is served next: callers take turns, and so do the links of each caller. A link that floods waits behind itself only,
//! and so does a caller who opens many links.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Items by caller and link, each link first in, first out.
#[derive(Debug)]
pub(super) struct FairQueue<C, L, T> {
    /// Callers with items, in the order of their turns.
    turns: VecDeque<C>,
    callers: HashMap<C, VecDeque<(L, VecDeque<T>)>>,
    len: usize,
}

impl<C, L, T> Default for FairQueue<C, L, T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), callers: HashMap::new(), len: 0 }
    }
}

impl<C: Clone + Eq + Hash, L: PartialEq, T> FairQueue<C, L, T> {
    /// How many items wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an item behind its link's others.
    pub(super) fn push(&mut self, caller: &C, link: L, item: T) {
        let links = self.callers.entry(caller.clone()).or_insert_with(|| {
            self.turns.push_back(caller.clone());
            VecDeque::new()
        });
        // A caller has at most a few dozen links: a scan is cheaper than a map.
        match links.iter_mut().find(|(known, _)| *known == link) {
            Some((_, items)) => items.push_back(item),
            None => links.push_back((link, VecDeque::from([item]))),
        }
        self.len += 1;
    }

    /// Takes the item whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let caller = self.turns.pop_front()?;
        let links = self.callers.get_mut(&caller)?;
        let (link, mut items) = links.pop_front()?;
        let item = items.pop_front()?;
        if !items.is_empty() {
            links.push_back((link, items));
        }
        if links.is_empty() {
            self.callers.remove(&caller);
        } else {
            self.turns.push_back(caller);
        }
        self.len -= 1;
        Some(item)
    }

    /// Takes away the items of one link for which `pick` holds, in order.
    pub(super) fn remove(&mut self, caller: &C, link: &L, pick: impl Fn(&T) -> bool) -> Vec<T> {
        let Some(links) = self.callers.get_mut(caller) else { return Vec::new() };
        let mut removed = Vec::new();
        if let Some((_, items)) = links.iter_mut().find(|(known, _)| known == link) {
            let (taken, kept): (VecDeque<T>, VecDeque<T>) = items.drain(..).partition(pick);
            *items = kept;
            removed.extend(taken);
        }
        links.retain(|(_, items)| !items.is_empty());
        if links.is_empty() {
            self.callers.remove(caller);
            self.turns.retain(|turn| turn != caller);
        }
        self.len -= removed.len();
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_take_turns_and_so_do_their_links() {
        let mut queue = FairQueue::default();
        for (caller, link, item) in [
            ("a", 1, "a1"),
            ("a", 1, "a2"),
            ("a", 2, "A1"),
            ("a", 2, "A2"),
            ("a", 3, "α"),
            ("b", 9, "b1"),
            ("b", 9, "b2"),
        ] {
            queue.push(&caller, link, item);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["a1", "b1", "A1", "b2", "α", "a2", "A2"]);
        assert_eq!((queue.len(), queue.turns.len(), queue.callers.len()), (0, 0, 0), "nothing is left behind");
    }

    #[test]
    fn a_link_is_taken_away_whole_or_in_part() {
        let mut queue = FairQueue::default();
        for (link, item) in [(1, 10), (2, 20), (1, 11), (1, 12)] {
            queue.push(&"a", link, item);
        }
        assert_eq!(queue.remove(&"a", &1, |item| *item == 11), [11]);
        assert_eq!(queue.remove(&"a", &1, |_| true), [10, 12]);
        assert!(queue.remove(&"a", &1, |_| true).is_empty() && queue.remove(&"b", &1, |_| true).is_empty());
        assert_eq!((queue.pop(), queue.pop(), queue.len()), (Some(20), None, 0));
        queue.push(&"a", 1, 13);
        assert_eq!(queue.remove(&"a", &1, |_| true), [13]);
        assert_eq!((queue.len(), queue.turns.len(), queue.callers.len()), (0, 0, 0));
    }
}
