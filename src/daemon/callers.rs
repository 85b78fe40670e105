//! How many connections each address has open, so that one caller cannot take all places of a door.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of one address at a time.
const MAX_OF_ONE: usize = 256;

/// The addresses that have connections open.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    callers: Callers,
    address: Option<IpAddr>,
}

impl Callers {
    /// A place for a connection from `address`, if it has not too many. Who is on this machine and shows it needs none.
    pub(super) fn place(&self, address: Option<IpAddr>) -> Option<Place> {
        if let Some(address) = address {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = open.entry(address).or_default();
            if *count >= MAX_OF_ONE {
                return None;
            }
            *count += 1;
        }
        Some(Place { callers: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = self.callers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_address_cannot_take_all_places_and_gets_back_what_it_gives_up() {
        let callers = Callers::default();
        let (one, other) = (Some(Ipv4Addr::LOCALHOST.into()), Some(Ipv4Addr::new(127, 0, 0, 2).into()));
        let mut places: Vec<_> = std::iter::from_fn(|| callers.place(one)).take(MAX_OF_ONE + 1).collect();
        assert_eq!(places.len(), MAX_OF_ONE);
        assert!(callers.place(other).is_some());
        assert!(callers.place(None).is_some());
        places.pop();
        assert!(callers.place(one).is_some());
        places.clear();
        assert!(callers.0.lock().unwrap().is_empty(), "nothing is kept of who has left");
    }
}
