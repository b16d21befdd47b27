//! Clients, identified by their network addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A client address to which limits apply. For IPv6 this is the 64-bit network, because a client
/// usually owns all of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Client(IpAddr);

impl<A: Into<IpAddr>> From<A> for Client {
    fn from(address: A) -> Self {
        match address.into().to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                Self(Ipv6Addr::from_bits(network).into())
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

impl Client {
    /// Returns a number that identifies the client.
    pub(crate) fn number(self) -> u64 {
        match self.0 {
            IpAddr::V4(address) => address.to_bits().into(),
            // The network half.
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn networks_of_ipv6_are_one_client() {
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::2"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }
}
