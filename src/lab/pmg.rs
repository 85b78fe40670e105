//! The API of Proxmox Mail Gateway 8, as far as monitoring reads it.
//!
//! Its database hands out sums as strings, and so does the tool behind the queue's shape.

use serde_json::{Map, Value, json};

use super::api::{Answer, Call, Refusal};
use super::clock::unix_seconds;

const GIB: u64 = 1 << 30;
const VERSION: &str = "8.2.1";
const REPOSITORY: &str = "eb3b7a1a";
const MEMORY: u64 = 8 * GIB;
const ROOT_DISK: u64 = 40 * GIB;
const DAY_SECS: u64 = 86_400;
const QUEUES: [&str; 4] = ["deferred", "active", "incoming", "hold"];
/// The ages, in minutes, by which the queue's shape is told.
const QUEUE_AGES: [&str; 10] = ["5m", "10m", "20m", "40m", "80m", "160m", "320m", "640m", "1280m", "1280m+"];

/// The answer to `GET` of a path; `None` if there is no such path.
pub(super) fn answer(call: &Call<'_>, path: &[&str]) -> Option<Answer> {
    Some(match path {
        ["version"] => Ok(json!({"version": VERSION, "release": "8.2", "repoid": REPOSITORY})),
        ["nodes"] => Ok(json!([{"node": call.host.node(call.member)}])),
        ["config", "cluster", "status"] => Ok(cluster_status(call)),
        ["nodes", node, "status"] => call.node_index(node).map(|_| node_status(call)),
        ["nodes", node, "postfix", "queue"] => {
            call.node_index(node).map(|_| QUEUES.map(|name| json!({ "name": name })).into_iter().collect())
        }
        ["nodes", node, "postfix", "qshape"] => call.node_index(node).and_then(|_| queue_shape(call)),
        ["statistics", "mail"] => Ok(mail_statistics(call)),
        ["quarantine", "spamstatus"] => Ok(spam_quarantine(call)),
        _ => return None,
    })
}

/// A gateway without a cluster lists nothing, unless it is asked for itself.
fn cluster_status(call: &Call<'_>) -> Value {
    if call.parameter("list_single_node").as_deref() != Some("1") {
        return json!([]);
    }
    let mut entry = node_status(call);
    let address = call.host.members[call.member].address;
    for (key, value) in [("type", "-"), ("hostrsapubkey", "-"), ("rootrsapubkey", "-"), ("fingerprint", "-")] {
        entry[key] = value.into();
    }
    entry["cid"] = 0.into();
    entry["ip"] = address.ip().to_string().into();
    entry["name"] = call.host.node(call.member).into();
    json!([entry])
}

fn node_status(call: &Call<'_>) -> Value {
    let (noise, now) = (call.host.noise, call.now);
    let memory_used = noise.of("memory").share(now, MEMORY, 0.4, 0.7);
    let root_used = noise.of("root").share(now, ROOT_DISK, 0.2, 0.3);
    let cpu = noise.of("cpu").gauge(now, 0.01, 0.4);
    json!({
        "time": unix_seconds(now), "insync": 1, "cpu": cpu, "wait": 0.002,
        "uptime": noise.between(1, 3_600, 90 * DAY_SECS) + now.as_millis() / 1_000,
        "loadavg": [format!("{:.2}", cpu * 4.0), format!("{:.2}", cpu * 3.6), format!("{:.2}", cpu * 3.2)],
        "memory": {"total": MEMORY, "used": memory_used, "free": MEMORY - memory_used},
        "swap": {"total": 4 * GIB, "used": 0, "free": 4 * GIB},
        "rootfs": {"total": ROOT_DISK, "used": root_used, "avail": ROOT_DISK - root_used,
            "free": ROOT_DISK - root_used},
        "cpuinfo": {"cpus": 4, "cores": 4, "sockets": 1, "model": "Intel(R) Xeon(R) E-2334 CPU @ 3.40GHz",
            "mhz": "3400.000", "hvm": "1", "user_hz": 100, "flags": "fpu vme vmx aes"},
        "pmgversion": format!("pmg-api/{VERSION}/{REPOSITORY}"),
        "kversion": "Linux 6.8.12-9-pve #1 SMP PREEMPT_DYNAMIC PMX 6.8.12-9 (2025-03-16T19:18Z)",
        "current-kernel": {"sysname": "Linux", "release": "6.8.12-9-pve", "machine": "x86_64",
            "version": "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-9 (2025-03-16T19:18Z)"},
        "boot-info": {"mode": "efi", "secureboot": 0},
    })
}

fn queue_shape(call: &Call<'_>) -> Answer {
    let queue = call.parameter("queue").unwrap_or_else(|| "deferred".to_owned());
    if !QUEUES.contains(&queue.as_str()) {
        let why = format!("value '{queue}' does not have a value in the enumeration '{}'", QUEUES.join(", "));
        return Err(Refusal::of_parameter("queue", why));
    }
    let noise = call.host.noise.of("queue").of(&queue);
    let mut total = 0;
    let ages: Vec<u64> = (0..QUEUE_AGES.len() as u64)
        .map(|age| noise.of(&age.to_string()).share(call.now, 6, 0.0, 1.0))
        .inspect(|count| total += count)
        .collect();
    let line = |domain: &str| {
        let ages = QUEUE_AGES.iter().zip(&ages).map(|(age, count)| ((*age).to_owned(), Value::from(count.to_string())));
        let mut line: Map<String, Value> = ages.collect();
        line.insert("domain".into(), domain.into());
        line.insert("total".into(), total.to_string().into());
        Value::Object(line)
    };
    Ok(json!([line("TOTAL"), line("example.org")]))
}

fn mail_statistics(call: &Call<'_>) -> Value {
    let seconds_today = unix_seconds(call.now) % DAY_SECS;
    let noise = call.host.noise.of("mail");
    let per_minute = |position, low, high| noise.between(position, low, high) * (seconds_today / 60);
    let (count_in, count_out) = (per_minute(0, 4, 12), per_minute(1, 2, 6));
    let spam_in = count_in / 3;
    json!({
        "count": (count_in + count_out).to_string(), "count_in": count_in.to_string(),
        "count_out": count_out.to_string(),
        "bytes_in": (count_in * 48_000).to_string(), "bytes_out": (count_out * 52_000).to_string(),
        "spamcount_in": spam_in, "spamcount_out": 0, "junk_in": spam_in + count_in / 50, "junk_out": 0,
        "viruscount_in": count_in / 200, "viruscount_out": 0, "bounces_in": count_in / 90,
        "bounces_out": count_out / 40, "glcount": count_in / 10, "rbl_rejects": count_in / 4,
        "pregreet_rejects": count_in / 30, "spfcount": count_in / 60,
        "avptime": format!("{:.6}", noise.gauge(call.now, 0.4, 1.9)),
    })
}

fn spam_quarantine(call: &Call<'_>) -> Value {
    let count = call.host.noise.of("quarantine").share(call.now, 900, 0.4, 0.6);
    json!({"count": count.to_string(), "mbytes": count as f64 * 0.031, "avgbytes": "32506.4", "avgspam": "14.2"})
}
