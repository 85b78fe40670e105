//! The health answer, written while it is read: a page of instances at a time, so that neither the size of the fleet nor
//! a slow reader costs the scheduler time or the daemon memory.
//!
//! Each row is from one moment; the whole is from the time that it takes to write it.

use std::ops::Bound;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::try_unfold;
use serde::Serialize;

use super::Api;
use super::health::{
    DEAD_LETTERS_LISTED, DeadLetterTask, DeadLetters, Head, Queue, breaker_row, dead_letter_task, instance_row_tail,
    staleness_row,
};
use crate::engine::{DUE_SOON, InstanceKey, InstanceView, PerType, Place, Timestamp};
use crate::fleet::Members;
use crate::runtime::{Calendar, DriverGone};

/// Reads what the answer begins with, and then the rest while the caller takes it.
pub(super) async fn answer(api: &Api) -> Result<Response, DriverGone> {
    let overview = api.handle.overview().await?;
    let calendar = api.clock.calendar();
    let tally = Tally::take(api, calendar).await?;
    let present = tally.present.iter().filter(|(_, present)| **present);
    let head = Head {
        updated_at: calendar.at(overview.at),
        enabled: overview.adaptive,
        queue: Queue {
            depth: overview.depth(),
            due_within_seconds: tally.due_soon,
            per_type: present.map(|(kind, _)| (kind.to_string(), overview.queued[kind])).collect(),
        },
        dead_letter: DeadLetters { count: tally.dead, tasks: tally.tasks },
    };
    let text = opening(&head, overview.adaptive);
    // With adaptive polling off, the lists about it are empty by contract.
    let list = overview.adaptive.then_some(List::Breakers);
    let writer =
        Writer { api: api.clone(), calendar, members: api.fleet.members(), list, after: None, has_rows: false, text };
    let body = Body::from_stream(try_unfold(writer, Writer::chunk));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The answer up to where its lists begin; the whole of it where they are empty.
fn opening(head: &Head, has_lists: bool) -> Vec<u8> {
    let mut text = Vec::new();
    write(&mut text, head);
    // The lists come before the brace that ends the object.
    text.pop();
    match has_lists {
        true => text.extend_from_slice(List::Breakers.opening()),
        false => text.extend_from_slice(br#","breakers":[],"staleness":[],"instances":[]}"#),
    }
    text
}

/// The rows of a page that is most likely full. A vector that grows as they come moves them again and again.
fn page_of<T>(rows: impl Iterator<Item = T>) -> Vec<T> {
    let mut page = Vec::with_capacity(rows.size_hint().1.unwrap_or_default());
    page.extend(rows);
    page
}

fn write(text: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(text, value).expect("plain values become JSON, and memory takes them");
}

/// What has to be counted before the first byte.
#[derive(Default)]
struct Tally {
    due_soon: u32,
    dead: usize,
    tasks: Vec<DeadLetterTask>,
    /// The types of which something is polled.
    present: PerType<bool>,
}

impl Tally {
    async fn take(api: &Api, calendar: Calendar) -> Result<Self, DriverGone> {
        let mut tally = Self::default();
        let mut after = None;
        loop {
            let page = api.handle.glance(after, move |now, views| {
                for view in views {
                    tally.count(&view, now + DUE_SOON, calendar);
                }
                tally
            });
            let page = page.await?;
            tally = page.found;
            match page.next {
                Some(key) => after = Some(key),
                None => return Ok(tally),
            }
        }
    }

    fn count(&mut self, view: &InstanceView<'_>, soon: Timestamp, calendar: Calendar) {
        self.present[view.key().kind()] |= view.place() != Place::Paused;
        self.due_soon += u32::from(view.place() == Place::Queued && view.due().is_some_and(|due| due <= soon));
        if view.dead_letter().is_some() {
            self.dead += 1;
            if self.tasks.len() < DEAD_LETTERS_LISTED {
                self.tasks.push(dead_letter_task(view, calendar));
            }
        }
    }
}

/// The lists of the answer, in the order of the document.
#[derive(Clone, Copy)]
enum List {
    Breakers,
    Staleness,
    Instances,
}

impl List {
    fn opening(self) -> &'static [u8] {
        match self {
            Self::Breakers => br#","breakers":["#,
            Self::Staleness => br#","staleness":["#,
            Self::Instances => br#","instances":["#,
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::Breakers => Some(Self::Staleness),
            Self::Staleness => Some(Self::Instances),
            Self::Instances => None,
        }
    }
}

struct Writer {
    api: Api,
    calendar: Calendar,
    members: Arc<Members>,
    /// The list that is being written; `None` when all are.
    list: Option<List>,
    /// The instance that the list has come to.
    after: Option<InstanceKey>,
    /// Whether the list has rows so far.
    has_rows: bool,
    /// Written and not yet handed out.
    text: Vec<u8>,
}

impl Writer {
    /// Writes on until there is something to hand out; `None` after the last byte.
    async fn chunk(mut self) -> Result<Option<(Bytes, Self)>, DriverGone> {
        while let Some(list) = self.list {
            self.after = match list {
                List::Breakers => self.breakers().await?,
                List::Staleness => self.staleness().await?,
                List::Instances => self.instances().await?,
            };
            if self.after.is_none() {
                self.close(list);
            }
            if !self.text.is_empty() {
                break;
            }
        }
        // The next part will be as long as this one, about.
        let next = Vec::with_capacity(self.text.len());
        let text = Bytes::from(std::mem::replace(&mut self.text, next));
        Ok((!text.is_empty()).then_some((text, self)))
    }

    async fn breakers(&mut self) -> Result<Option<InstanceKey>, DriverGone> {
        let calendar = self.calendar;
        let look = move |_, views: &mut dyn Iterator<Item = InstanceView<'_>>| -> Vec<_> {
            views.filter_map(|view| breaker_row(&view, calendar)).collect()
        };
        let page = self.api.handle.glance(self.after.take(), look).await?;
        page.found.iter().for_each(|row| self.row(row));
        Ok(page.next)
    }

    async fn staleness(&mut self) -> Result<Option<InstanceKey>, DriverGone> {
        let calendar = self.calendar;
        let look = move |_, views: &mut dyn Iterator<Item = InstanceView<'_>>| {
            page_of(views.map(|view| staleness_row(&view, calendar)))
        };
        let page = self.api.handle.glance(self.after.take(), look).await?;
        page.found.iter().for_each(|row| self.row(row));
        Ok(page.next)
    }

    async fn instances(&mut self) -> Result<Option<InstanceKey>, DriverGone> {
        let from = self.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let look = |_, views: &mut dyn Iterator<Item = InstanceView<'_>>| page_of(views.map(|view| view.health()));
        let page = self.api.handle.page(self.after.take(), look).await?;
        let (calendar, members) = (self.calendar, Arc::clone(&self.members));
        // Both are sorted by key. One that came or went meanwhile is in one of them alone, and left out.
        let mut members = members.range((from, Bound::Unbounded)).peekable();
        for row in &page.found {
            while members.next_if(|(key, _)| **key < row.key).is_some() {}
            if let Some((_, member)) = members.next_if(|(key, _)| **key == row.key) {
                self.separate();
                self.text.extend_from_slice(member.identity().as_bytes());
                let begin = self.text.len();
                write(&mut self.text, &instance_row_tail(row, calendar));
                // One object is made of two: the second's brace becomes the comma between them.
                self.text[begin] = b',';
            }
        }
        Ok(page.next)
    }

    fn row(&mut self, row: &impl Serialize) {
        self.separate();
        write(&mut self.text, row);
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.has_rows, true) {
            self.text.push(b',');
        }
    }

    fn close(&mut self, list: List) {
        self.text.push(b']');
        self.has_rows = false;
        self.list = list.next();
        match self.list {
            Some(next) => self.text.extend_from_slice(next.opening()),
            None => self.text.push(b'}'),
        }
    }
}
