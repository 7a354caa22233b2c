//! The example directory.
use std::{io, path::Path};

const POOLS: &str = "\
# Addresses to give out. The ranges are reserved for documentation (RFC 5737, RFC 3849): nothing real is touched.
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: public
  namespace: metallb-system
spec:
  addresses:
  - 192.0.2.10-192.0.2.20
  - 2001:db8:100::/120
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: internal
  namespace: metallb-system
spec:
  addresses:
  - 198.51.100.0/28
  autoAssign: false # only for Services that ask for it
";

const ADVERTISEMENTS: &str = "\
# Who is told about which pools. The sandbox's own router always is a peer; on a cluster, add BGPPeer objects.
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata:
  name: everything
  namespace: metallb-system
spec:
  communities:
  - from-ferrocast
---
apiVersion: metallb.io/v1beta1
kind: Community
metadata:
  name: names
  namespace: metallb-system
spec:
  communities:
  - name: from-ferrocast
    value: 64512:100
";

const PEERS: &str = "\
# A router of the rack, as on a cluster. Nothing listens on this address here: the session stays down, and says so.
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata:
  name: top-of-rack
  namespace: metallb-system
spec:
  myASN: 64512
  peerASN: 64513
  peerAddress: 127.0.0.1
  peerPort: 16000
";

const WEB: &str = "\
# Dual-stack, served from every node that runs Ferrocast.
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: default
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector:
    app: web
  ports:
  - port: 80
";

const API: &str = "\
# Only nodes with an endpoint take traffic (externalTrafficPolicy: Local): node1 and node2 serve, node3 does not.
apiVersion: v1
kind: Service
metadata:
  name: api
  namespace: default
  annotations:
    metallb.io/address-pool: internal
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector:
    app: api
  ports:
  - port: 443
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: api-1
  namespace: default
  labels:
    kubernetes.io/service-name: api
addressType: IPv4
ports:
- port: 443
endpoints:
- addresses: [10.244.1.10]
  nodeName: node1
- addresses: [10.244.2.10]
  nodeName: node2
- addresses: [10.244.3.10]
  nodeName: node3
  conditions:
    ready: false
";

/// Writes the example into `dir`.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn write(dir: &Path) -> io::Result<()> {
    for (name, text) in [
        ("pools.yaml", POOLS),
        ("advertisements.yaml", ADVERTISEMENTS),
        ("peers.yaml", PEERS),
        ("web.yaml", WEB),
        ("api.yaml", API),
    ] {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}
