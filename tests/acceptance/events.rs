//! The stream of events: what happens is told while it happens, and nobody who listens can hold the daemon up.

use pulse::lab::HostPlan;
use pulse::security::Role;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::support::{Daemon, Folder, PATIENCE, SEED, lab};

/// An event as it came.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// A stream, read event by event.
pub(crate) struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(daemon: &Daemon, token: &str, last: Option<&str>) -> Self {
        let request = daemon.anonymous(Method::GET, "/api/events").bearer_auth(token);
        let request = if let Some(last) = last { request.header("Last-Event-ID", last) } else { request };
        Self::of(request.send().await.unwrap())
    }

    pub(crate) fn of(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                    line.map(|value| value.trim_start().to_owned())
                };
                let told = field("event").map(|name| Told {
                    id: field("id").unwrap(),
                    name,
                    data: serde_json::from_str(&field("data").unwrap()).unwrap(),
                });
                self.text = rest.to_owned();
                if told.is_some() {
                    return told;
                }
            } else {
                let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.unwrap().unwrap()?;
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        }
    }

    pub(crate) async fn until(&mut self, name: &str) -> Told {
        loop {
            let told = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if told.name == name {
                return told;
            }
        }
    }
}

#[tokio::test]
async fn what_happens_is_told_and_whoever_comes_back_has_missed_nothing() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let daemon = Daemon::start(&folder).await;
    let mut stream = Stream::open(&daemon, &daemon.token, None).await;
    let ready = stream.next().await.unwrap();
    assert_eq!(ready.name, "ready");
    let pause = async |what: &str| {
        let path = format!("/api/monitoring/instances/pve::rack/{what}");
        assert_eq!(daemon.post(&path, &json!({})).await.status(), StatusCode::OK);
    };
    pause("pause").await;
    let paused = stream.until("paused").await;
    assert_eq!(paused.data["key"], "pve::rack");
    assert!(paused.data["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    drop(stream);
    pause("resume").await;
    let mut back = Stream::open(&daemon, &daemon.token, Some(&paused.id)).await;
    assert_eq!(back.next().await.unwrap().name, "ready");
    assert_eq!(back.until("resumed").await.data["key"], "pve::rack");
    let mut from_another_run = Stream::open(&daemon, &daemon.token, Some("0-1")).await;
    from_another_run.next().await;
    let lagged = from_another_run.next().await.unwrap();
    assert_eq!((lagged.name.as_str(), &lagged.data["missed"]), ("lagged", &Value::Null));
    daemon.stop().await;
    assert!(
        async {
            while back.next().await.is_some() {}
            true
        }
        .await,
        "the stream ends with the daemon"
    );
    lab.shutdown().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    let token = daemon.new_token("wall", Role::Viewer).await;
    let mut stream = Stream::open(&daemon, &token, None).await;
    assert_eq!(stream.next().await.unwrap().name, "ready");
    let revoked = daemon.request(Method::DELETE, "/api/security/tokens/wall").send().await.unwrap();
    assert_eq!(revoked.status(), StatusCode::OK);
    // Something happens, and the next look at the token ends the stream instead of telling it.
    folder.write_json(
        "instances.json",
        &json!({"instances": [{"type": "tcp", "name": "a", "host": "127.0.0.1", "port": 1}]}),
    );
    assert!(stream.next().await.is_none());
    daemon.stop().await;
}

#[tokio::test]
async fn readers_are_bounded_and_their_places_are_free_again_when_they_leave() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(Stream::open(&daemon, &daemon.token, None).await);
    }
    let one_more = async || daemon.request(Method::GET, "/api/events").send().await.unwrap();
    assert_eq!(one_more().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(streams);
    let free = async || (one_more().await.status() == StatusCode::OK).then_some(());
    super::support::eventually("a place is free", PATIENCE, free).await.unwrap();
    daemon.stop().await;
}
