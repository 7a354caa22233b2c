//! What no allocator that remembers who has what, and tells it, can do without.
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use ferrocast_core::{
    alloc::{Change, Outcome},
    config::Strategy,
    model::{Service, ServiceKey},
};

use crate::{
    micros, ran,
    scene::{Scene, batches},
};

/// Time for each of `used` Services, µs: it is put into a map with its outcome, and its address into another. They come in batches
/// of `batch_len`, as for the allocator.
pub(crate) fn measure(used: u32, batch_len: usize) -> f64 {
    let scene = Scene::of_slash_8(Strategy::First);
    let pool: Arc<str> = "p".into();
    let mut of_service: HashMap<ServiceKey, (Arc<Service>, Arc<Outcome>)> = HashMap::new();
    let mut of_address: HashMap<IpAddr, ServiceKey> = HashMap::new();
    let mut time = Duration::ZERO;
    let mut free = (0x0a00_0000..).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    for batch in batches(&scene, used, batch_len) {
        let (mut effects, began) = (Vec::with_capacity(batch.len()), ran());
        for (change, ip) in batch.into_iter().zip(&mut free) {
            let Change::Service(key, Some(service)) = change else { continue };
            let outcome = Arc::new(Outcome {
                ips: vec![ip],
                pool: Some(pool.clone()),
                pools: vec![pool.clone()],
                code: "allocated",
                message: format!("{ip} from pool \"{pool}\""),
                ..Outcome::default()
            });
            of_address.insert(ip, key.clone());
            of_service.insert(key.clone(), (service, outcome.clone()));
            effects.push((key, outcome));
        }
        time += ran() - began;
        drop(effects);
    }
    assert_eq!(of_address.len(), of_service.len(), "an address for each");
    micros(time, used)
}
