//! What was accepted of the files, and what of them is refused as it stands.
//!
//! Each difference is told once.

use std::path::Path;
use std::sync::Arc;

use super::edit::PreparedInventory;
use super::error::{ConfigErrors, Problem};
use super::in_force::{Before, InForce};
use super::instances::{Instance, file_error};
use super::provided::Provided;

/// The accepted content of one file, and whether the file as it stands was refused.
#[derive(Debug)]
pub(super) struct Followed<T> {
    pub(super) accepted: T,
    /// Whether there ever was a file; one that never was is not missed.
    existed: bool,
    pub(super) refused: Option<ConfigErrors>,
}

impl<T: Clone + PartialEq> Followed<T> {
    pub(super) fn new(accepted: T, existed: bool) -> Self {
        Self { accepted, existed, refused: None }
    }

    /// Judges what was loaded, with the file there or not; `None` if there is nothing new to tell.
    pub(super) fn follow(
        &mut self,
        file: &Path,
        is_there: bool,
        loaded: Result<Option<T>, ConfigErrors>,
    ) -> Option<Result<T, ConfigErrors>> {
        let is_deleted = self.existed && !is_there;
        self.existed |= is_there;
        let errors = match loaded {
            Ok(_) if is_deleted => file_error(file, Problem::Deleted).into(),
            Ok(None) => return None,
            Ok(Some(content)) => {
                let recovered = self.refused.take().is_some();
                if content == self.accepted && !recovered {
                    return None;
                }
                self.accepted = content.clone();
                return Some(Ok(content));
            }
            Err(errors) => errors,
        };
        if self.refused.as_ref() == Some(&errors) {
            return None;
        }
        self.refused = Some(errors.clone());
        Some(Err(errors))
    }
}

/// The fleet that was accepted, and what is wrong with its files as they stand.
#[derive(Debug)]
pub(super) struct FollowedFleet {
    instances: Arc<[Instance]>,
    provided: Arc<Provided>,
    /// Whether all is known that the files of other tools held before one of them was broken.
    is_known: bool,
    had_inventory: bool,
    inventory_errors: Option<ConfigErrors>,
    provided_errors: Option<ConfigErrors>,
}

/// What is new about the fleet.
pub(super) struct FleetNews {
    /// The fleet, if it is another, or if nothing is wrong with any of its files any more.
    pub(super) changed: Option<Arc<[Instance]>>,
    /// Everything that is wrong with its files, if that is new.
    pub(super) refused: Option<ConfigErrors>,
}

impl FollowedFleet {
    /// Begins with a fleet of which no file was broken.
    pub(super) fn new(instances: &Arc<[Instance]>, provided: &Arc<Provided>, had_inventory: bool) -> Self {
        let (instances, provided) = (Arc::clone(instances), Arc::clone(provided));
        Self { instances, provided, is_known: true, had_inventory, inventory_errors: None, provided_errors: None }
    }

    /// Begins with files of which nothing is known yet.
    pub(super) fn unread() -> Self {
        Self { is_known: false, ..Self::new(&Arc::default(), &Arc::default(), false) }
    }

    pub(super) fn instances(&self) -> &Arc<[Instance]> {
        &self.instances
    }

    pub(super) fn provided(&self) -> &Provided {
        &self.provided
    }

    /// What other tools provide, unless a file was broken from the start.
    pub(super) fn provided_if_known(&self) -> Option<&Provided> {
        self.is_known.then_some(&self.provided)
    }

    pub(super) fn before(&self) -> Before<'_> {
        Before { instances: &self.instances, provided: &self.provided, had_inventory: self.had_inventory }
    }

    pub(super) fn refused_inventory(&self) -> Option<&ConfigErrors> {
        self.inventory_errors.as_ref()
    }

    pub(super) fn refused(&self) -> Option<ConfigErrors> {
        ConfigErrors::of_both(self.inventory_errors.as_ref(), self.provided_errors.as_ref())
    }

    /// Takes over what is in force by now.
    pub(super) fn follow(&mut self, now: InForce, is_there: bool) -> FleetNews {
        let refused_before = self.refused();
        self.had_inventory |= is_there;
        self.inventory_errors = now.inventory_errors;
        self.take_provided(Arc::new(Provided { parts: now.provided }), now.provided_errors);
        let refused = self.refused();
        let is_mended = refused_before.is_some() && refused.is_none();
        let instances: Arc<[Instance]> = now.instances.into();
        let changed = (is_mended || instances != self.instances).then(|| Arc::clone(&instances));
        self.instances = instances;
        FleetNews { changed, refused: refused.filter(|now| Some(now) != refused_before.as_ref()) }
    }

    /// This inventory was written and is in force.
    pub(super) fn accept(&mut self, inventory: &PreparedInventory) {
        self.instances = Arc::clone(inventory.instances());
        self.had_inventory = true;
        self.inventory_errors = None;
        if let Some((provided, errors)) = inventory.provided() {
            self.take_provided(Arc::clone(provided), errors.clone());
        }
    }

    fn take_provided(&mut self, provided: Arc<Provided>, errors: Option<ConfigErrors>) {
        self.provided = provided;
        self.is_known |= errors.is_none();
        self.provided_errors = errors;
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::{ConfigError, Place};
    use super::*;

    fn broken(name: &str) -> ConfigErrors {
        ConfigError { place: Place::Variable(name.into()), problem: Problem::Missing }.into()
    }

    #[test]
    fn only_what_is_new_is_told() {
        let file = Path::new("f");
        let mut followed = Followed::new(1, true);
        assert_eq!(followed.follow(file, true, Ok(Some(1))), None);
        assert_eq!(followed.follow(file, true, Ok(Some(2))), Some(Ok(2)));
        assert_eq!(followed.follow(file, true, Err(broken("a"))), Some(Err(broken("a"))));
        assert_eq!(followed.follow(file, true, Err(broken("a"))), None);
        assert_eq!(followed.follow(file, true, Err(broken("b"))), Some(Err(broken("b"))));
        assert_eq!(followed.accepted, 2);
    }

    #[test]
    fn the_end_of_a_refusal_is_told_even_if_nothing_else_changed() {
        let mut followed = Followed::new(1, true);
        followed.follow(Path::new("f"), true, Err(broken("a")));
        assert_eq!(followed.follow(Path::new("f"), true, Ok(Some(1))), Some(Ok(1)));
        assert_eq!(followed.follow(Path::new("f"), true, Ok(Some(1))), None);
    }

    #[test]
    fn a_deleted_file_is_refused_and_one_that_never_was_is_not_missed() {
        let mut followed = Followed::new(1, false);
        assert_eq!(followed.follow(Path::new("f"), false, Ok(None)), None);
        followed.follow(Path::new("f"), true, Ok(Some(2)));
        let refused = followed.follow(Path::new("f"), false, Ok(None)).unwrap().unwrap_err();
        assert_eq!(refused.iter().next().unwrap().problem, Problem::Deleted);
        assert_eq!(followed.accepted, 2);
    }
}
