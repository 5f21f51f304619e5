//! Load on a server that runs: so many clients, each of which asks as soon as it is answered. And a soak: many requests of every kind,
//! broken pictures among them, of which none may be lost.
//!
//!     cargo run --release -p simla-serve --example load -- http://127.0.0.1:7878 search
//!     cargo run --release -p simla-serve --example load -- http://127.0.0.1:7878 soak

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Clients of a measurement, one after the other.
const CLIENTS: [usize; 3] = [1, 8, 64];
/// How long each takes.
const SECONDS: u64 = 10;
/// Requests of a soak, and its clients.
const SOAKED: usize = 10_000;
const SOAKING: usize = 16;

const PHRASES: [&str; 8] = [
    "a red circle",
    "a blue square above a green triangle",
    "a small yellow star",
    "two circles",
    "a large purple square left of a circle",
    "a green triangle",
    "a blue star below a red square",
    "a yellow circle",
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "load ADDRESS search|page|soak";
    let address = arguments.next().expect(usage).trim_end_matches('/').to_owned();
    match arguments.next().as_deref() {
        Some("search") => {
            for (name, more) in [("ranked again (16 candidates)", ""), ("by contrast alone", "&candidates=0")] {
                println!("search, {name}");
                for clients in CLIENTS {
                    measure(clients, |nth| {
                        let phrase = PHRASES[nth % PHRASES.len()].replace(' ', "+");
                        format!("{address}/api/search?q={phrase}{more}")
                    });
                }
            }
        }
        Some("page") => {
            println!("the page");
            measure(1, |_| format!("{address}/"));
        }
        Some("soak") => soak(&address),
        _ => panic!("{usage}"),
    }
}

fn agent() -> ureq::Agent {
    let patience = Some(Duration::from_secs(60));
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(patience).build().into()
}

/// Seconds until the first byte of the answer and until its end, and its status.
fn timed(agent: &ureq::Agent, address: &str) -> (f64, f64, u16) {
    let start = Instant::now();
    let mut answer = agent.get(address).call().expect("an answer");
    let first = start.elapsed().as_secs_f64();
    answer.body_mut().read_to_string().expect("a whole answer");
    (first, start.elapsed().as_secs_f64(), answer.status().as_u16())
}

fn measure(clients: usize, address: impl Fn(usize) -> String + Sync) {
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let count = AtomicUsize::new(0);
    let client = || {
        let (agent, mut all) = (agent(), vec![]);
        while Instant::now() < end {
            all.push(timed(&agent, &address(count.fetch_add(1, Ordering::Relaxed))));
        }
        all
    };
    let all: Vec<(f64, f64, u16)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
    });
    let refused = all.iter().filter(|(_, _, status)| *status != 200).count();
    let sorted = |part: fn(&(f64, f64, u16)) -> f64| {
        let mut times: Vec<f64> = all.iter().filter(|(_, _, status)| *status == 200).map(part).collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let (first, whole) = (sorted(|t| t.0), sorted(|t| t.1));
    let at = |times: &[f64], share: f64| 1e3 * times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "  {clients:>2} clients: {:>7.1} a second, p50 {:>7.1} ms, p99 {:>7.1} ms, first byte p50 {:>6.1} ms, refused {refused}",
        whole.len() as f64 / SECONDS as f64,
        at(&whole, 0.5),
        at(&whole, 0.99),
        at(&first, 0.5),
    );
}

/// A request of a soak: its method, path and body, and the statuses that are right.
fn request(nth: usize, ids: &[String], small: &[u8]) -> (bool, String, Vec<u8>, &'static [u16]) {
    let phrase = PHRASES[nth % PHRASES.len()].replace(' ', "+");
    let id = &ids[nth % ids.len()];
    match nth % 12 {
        0..4 => (false, format!("/api/search?q={phrase}&skip={}", nth % 40), vec![], &[200]),
        4 => (false, format!("/api/similar?id={id}"), vec![], &[200]),
        5 => (false, format!("/api/pictures/{id}/small"), vec![], &[200]),
        6 => (false, format!("/api/ground?id={id}&phrase={phrase}"), vec![], &[200]),
        7 => (false, format!("/api/keywords?id={id}"), vec![], &[200]),
        8 => (true, "/api/similar".into(), small.to_vec(), &[200]),
        // Cut, and damaged somewhere: most are no pictures any more, some still are.
        9 => (true, "/api/similar".into(), small[..nth % small.len()].to_vec(), &[200, 422]),
        10 => {
            let mut damaged = small.to_vec();
            let at = nth * 7919 % damaged.len();
            damaged[at] ^= 1 << (nth % 8);
            (true, format!("/api/ground?phrase={phrase}"), damaged, &[200, 422])
        }
        _ => (false, "/api/search?q=".into(), vec![], &[400]),
    }
}

fn soak(address: &str) {
    let listed = agent().get(format!("{address}/api/pictures?top=100")).call().expect("a list of pictures");
    let listed = listed.into_body().read_to_string().expect("a whole answer");
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let ids: Vec<String> = listed["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|found| found["id"].as_str().expect("an id").into())
        .collect();
    let small = agent().get(format!("{address}/api/pictures/{}/small", ids[0])).call().expect("a small picture");
    let small = small.into_body().read_to_vec().expect("a whole picture");
    let (count, start) = (AtomicUsize::new(0), Instant::now());
    let client = || {
        let (agent, mut statuses, mut wrong) = (agent(), BTreeMap::<u16, usize>::new(), vec![]);
        loop {
            let nth = count.fetch_add(1, Ordering::Relaxed);
            if nth >= SOAKED {
                return (statuses, wrong);
            }
            let (post, path, body, right) = request(nth, &ids, &small);
            // Who is put off asks again.
            let status = loop {
                let url = format!("{address}{path}");
                let answer = match post {
                    true => agent.post(url).header("content-type", "image/jpeg").send(&body[..]),
                    false => agent.get(url).call(),
                };
                let status = answer.map(|mut answer| {
                    let whole = answer.body_mut().read_to_vec();
                    if whole.is_ok() { answer.status().as_u16() } else { 0 }
                });
                let status = status.unwrap_or(0);
                *statuses.entry(status).or_default() += 1;
                if status != 429 {
                    break status;
                }
                std::thread::sleep(Duration::from_secs(1));
            };
            if !right.contains(&status) {
                wrong.push(format!("{status}: {path}"));
            }
        }
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SOAKING).map(|_| scope.spawn(client)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
    });
    let mut statuses = BTreeMap::<u16, usize>::new();
    let mut wrong = vec![];
    for (own, own_wrong) in all {
        own.into_iter().for_each(|(status, count)| *statuses.entry(status).or_default() += count);
        wrong.extend(own_wrong);
    }
    println!(
        "soak: {SOAKED} requests by {SOAKING} clients in {:.0} s; answers by status {statuses:?}",
        start.elapsed().as_secs_f64()
    );
    println!("  answers that were lost or not as expected: {}", wrong.len());
    wrong.iter().take(10).for_each(|wrong| println!("  {wrong}"));
    std::process::exit(i32::from(!wrong.is_empty()));
}
