//! Intrusive doubly linked lists over dense ids: where each instance waits.
//!
//! Every id has one node, so it is in one list at most, by construction. Nothing is allocated after [`Lists::resize`].

/// The end of a list, and the list of a node that waits nowhere.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    next: u32,
    prev: u32,
    list: u32,
}

const LOOSE: Node = Node { next: NONE, prev: NONE, list: NONE };

#[derive(Clone, Copy, Debug)]
struct Ends {
    head: u32,
    tail: u32,
}

const EMPTY: Ends = Ends { head: NONE, tail: NONE };

/// A fixed number of lists that share one set of nodes. All operations take constant time.
#[derive(Debug)]
pub(super) struct Lists {
    nodes: Vec<Node>,
    lists: Vec<Ends>,
}

impl Lists {
    pub(super) fn new(lists: usize) -> Self {
        Self { nodes: Vec::new(), lists: vec![EMPTY; lists] }
    }

    /// Makes room for ids below `nodes`; never shrinks.
    pub(super) fn grow_nodes(&mut self, nodes: usize) {
        if nodes > self.nodes.len() {
            self.nodes.resize(nodes, LOOSE);
        }
    }

    /// Sets the number of lists. The lists that go must be empty.
    pub(super) fn resize_lists(&mut self, lists: usize) {
        debug_assert!(self.lists.iter().skip(lists).all(|ends| ends.head == NONE));
        self.lists.resize(lists, EMPTY);
    }

    pub(super) fn push_back(&mut self, list: usize, id: u32) {
        debug_assert_eq!(self.nodes[id as usize].list, NONE, "an instance waits in one place at most");
        let tail = self.lists[list].tail;
        self.nodes[id as usize] = Node { next: NONE, prev: tail, list: list as u32 };
        match tail {
            NONE => self.lists[list].head = id,
            tail => self.nodes[tail as usize].next = id,
        }
        self.lists[list].tail = id;
    }

    /// Takes `id` out of the list it is in and names that list; `None` if it is in none.
    #[inline]
    pub(super) fn unlink(&mut self, id: u32) -> Option<usize> {
        let node = &mut self.nodes[id as usize];
        let Node { next, prev, list } = *node;
        if list == NONE {
            return None;
        }
        node.list = NONE;
        let ends = &mut self.lists[list as usize];
        match prev {
            NONE => ends.head = next,
            prev => self.nodes[prev as usize].next = next,
        }
        match next {
            NONE => ends.tail = prev,
            next => self.nodes[next as usize].prev = prev,
        }
        Some(list as usize)
    }

    /// Hands out whoever of `list` is to go, in its order. The others stay in theirs.
    #[inline]
    pub(super) fn take(&mut self, list: usize, mut is_to_go: impl FnMut(u32) -> bool, taken: &mut Vec<u32>) {
        let mut next = std::mem::replace(&mut self.lists[list], EMPTY).head;
        while let Some(id) = some(next) {
            let node = &mut self.nodes[id as usize];
            next = node.next;
            node.list = NONE;
            if is_to_go(id) {
                taken.push(id);
            } else {
                self.push_back(list, id);
            }
        }
    }

    pub(super) fn head(&self, list: usize) -> Option<u32> {
        some(self.lists[list].head)
    }

    pub(super) fn next(&self, id: u32) -> Option<u32> {
        some(self.nodes[id as usize].next)
    }

    pub(super) fn is_empty(&self, list: usize) -> bool {
        self.lists[list].head == NONE
    }

    /// The list that `id` waits in.
    pub(super) fn list_of(&self, id: u32) -> Option<usize> {
        some(self.nodes[id as usize].list).map(|list| list as usize)
    }
}

const fn some(id: u32) -> Option<u32> {
    match id {
        NONE => None,
        id => Some(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(lists: &Lists, list: usize) -> Vec<u32> {
        std::iter::successors(lists.head(list), |id| lists.next(*id)).collect()
    }

    #[test]
    fn a_list_keeps_the_order_of_arrival() {
        let mut lists = Lists::new(2);
        lists.grow_nodes(4);
        for id in [2, 0, 3] {
            lists.push_back(1, id);
        }
        assert_eq!(ids(&lists, 1), [2, 0, 3]);
        assert_eq!(lists.unlink(0), Some(1));
        assert_eq!(ids(&lists, 1), [2, 3]);
        assert_eq!(lists.unlink(0), None);
        lists.push_back(0, 0);
        assert_eq!(lists.list_of(0), Some(0));
        assert_eq!(lists.unlink(2), Some(1));
        assert_eq!(lists.unlink(3), Some(1));
        assert!(lists.is_empty(1) && !lists.is_empty(0));
    }
}
