//! Threads that want one std::sync::Mutex, and a channel's receiver, for SECONDS.
use std::collections::BTreeMap;
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

#[inline(never)]
fn insert(map: &Mutex<BTreeMap<u64, String>>, key: u64) {
    let mut map = map.lock().unwrap();
    map.insert(key % 1000, format!("value {}", key));
    thread::sleep(Duration::from_micros(50));
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let map = Arc::new(Mutex::new(BTreeMap::new()));
    let (sender, receiver) = mpsc::channel();
    let workers: Vec<_> = (0..8u64)
        .map(|n| {
            let (map, sender) = (map.clone(), sender.clone());
            thread::spawn(move || {
                let mut key = n;
                while Instant::now() < end {
                    insert(&map, key);
                    sender.send(key).unwrap();
                    key += 8;
                }
            })
        })
        .collect();
    drop(sender);
    println!("at work");
    let mut sum = 0u64;
    for key in receiver {
        sum = sum.wrapping_add(key);
    }
    for worker in workers {
        worker.join().unwrap();
    }
    println!("{}", sum);
}
