//! A certificate authority of our own: makes itself, and certificates for our servers.
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};

/// How long an authority is valid. It signs for one purpose in one cluster, and is renewed long before.
const AUTHORITY_TIME: Duration = Duration::from_secs(5 * 365 * 86_400);
/// How long a server's certificate is valid.
const CERTIFICATE_TIME: Duration = Duration::from_secs(365 * 86_400);
/// Certificates are valid from so long before they are made, since the clocks of a cluster differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// What is renewed when only this part of its life is left: a third, so that a controller that was away for months is in time.
const RENEW_PART: u64 = 3;

/// A key and its certificate, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certified {
    /// Certificate.
    pub certificate: String,
    /// Private key, PKCS #8.
    pub key: String,
    /// End of validity, seconds since the Unix epoch.
    pub expires_s: i64,
}

impl std::fmt::Debug for Certified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certified").field("expires_s", &self.expires_s).finish_non_exhaustive()
    }
}

/// What is in force, and what it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The authority.
    pub authority: Certified,
    /// The server's certificate, signed by it.
    pub server: Certified,
    /// The authority before this one, while certificates of it may still be served somewhere. PEM, may be empty.
    pub former_authority: String,
}

impl Chain {
    /// Everything that a client may have to trust, PEM.
    #[must_use]
    pub fn trusted(&self) -> String {
        format!("{}{}", self.authority.certificate, self.former_authority)
    }
}

/// When something valid for `life` and until `expires_s` is to be renewed, seconds since the Unix epoch.
fn renew_at_s(expires_s: i64, life: Duration) -> i64 {
    expires_s.saturating_sub(i64::try_from(life.as_secs() / RENEW_PART).unwrap_or(i64::MAX))
}

/// The chain that should be in force now: `stored` as far as it is valid for long enough, the rest made anew.
///
/// # Errors
/// If keys cannot be made, or the stored authority's key cannot be read (then nothing is wrong with making a new one: pass
/// `None`).
pub fn renew(
    stored: Option<&Chain>,
    common_name: &str,
    names: &[String],
    now: Timestamp,
) -> Result<Chain, rcgen::Error> {
    let now_s = now.as_second();
    let good = stored.filter(|chain| now_s < renew_at_s(chain.authority.expires_s, AUTHORITY_TIME));
    let (authority, former) = match (good, stored) {
        (Some(chain), _) => (chain.authority.clone(), chain.former_authority.clone()),
        (None, old) => (
            new_authority(common_name, now)?,
            old.filter(|chain| now_s < chain.authority.expires_s)
                .map(|chain| chain.authority.certificate.clone())
                .unwrap_or_default(),
        ),
    };
    let server = match good.filter(|chain| now_s < renew_at_s(chain.server.expires_s, CERTIFICATE_TIME)) {
        Some(chain) => chain.server.clone(),
        None => issue(&authority, common_name, names, now)?,
    };
    Ok(Chain { authority, server, former_authority: former })
}

/// When [`renew`] has something to do next.
#[must_use]
pub fn renewal_s(chain: &Chain) -> i64 {
    renew_at_s(chain.authority.expires_s, AUTHORITY_TIME).min(renew_at_s(chain.server.expires_s, CERTIFICATE_TIME))
}

/// The parameters that both the authority's certificate and its signatures are made from: the same name each time.
fn authority_params(common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

/// Sets the time of validity; returns its end.
fn validity(params: &mut CertificateParams, now: Timestamp, life: Duration) -> i64 {
    let from = std::time::SystemTime::from(now) - CLOCK_SKEW;
    let until = std::time::SystemTime::from(now) + life;
    params.not_before = from.into();
    params.not_after = until.into();
    params.serial_number = Some(SerialNumber::from(fastrand::u64(1..)));
    now.as_second().saturating_add(i64::try_from(life.as_secs()).unwrap_or(i64::MAX))
}

fn new_authority(common_name: &str, now: Timestamp) -> Result<Certified, rcgen::Error> {
    let key = KeyPair::generate()?;
    // Two authorities of one name but different keys confuse clients that look them up by name.
    let name = format!("{common_name} {}", now.as_second());
    let mut params = authority_params(&name)?;
    let expires_s = validity(&mut params, now, AUTHORITY_TIME);
    let certificate = params.self_signed(&key)?;
    Ok(Certified { certificate: certificate.pem(), key: key.serialize_pem(), expires_s })
}

fn issue(
    authority: &Certified,
    common_name: &str,
    names: &[String],
    now: Timestamp,
) -> Result<Certified, rcgen::Error> {
    let made_s = authority.expires_s.saturating_sub(i64::try_from(AUTHORITY_TIME.as_secs()).unwrap_or(i64::MAX));
    let issuer = Issuer::new(authority_params(&format!("{common_name} {made_s}"))?, KeyPair::from_pem(&authority.key)?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, names.first().map_or(common_name, String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let expires_s = validity(&mut params, now, CERTIFICATE_TIME).min(authority.expires_s);
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Certified { certificate: certificate.pem(), key: key.serialize_pem(), expires_s })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::SignedDuration;

    fn after(days: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours((20_000 + days) * 24)
    }

    #[test]
    fn chain_is_kept_while_it_is_fresh_and_renewed_part_by_part() {
        let names = vec!["a.b.svc".to_owned()];
        let first = renew(None, "test", &names, after(0)).unwrap();
        assert_eq!(renew(Some(&first), "test", &names, after(200)).unwrap(), first, "nothing to do");
        let second = renew(Some(&first), "test", &names, after(300)).unwrap();
        assert_eq!(second.authority, first.authority);
        assert_ne!(second.server, first.server);
        assert_eq!(second.former_authority, "");
        let third = renew(Some(&second), "test", &names, after(4 * 365)).unwrap();
        assert_ne!(third.authority, first.authority);
        assert_eq!(third.former_authority, first.authority.certificate, "still trusted for what is served elsewhere");
        assert!(third.trusted().matches("BEGIN CERTIFICATE").count() == 2);
        assert!(renewal_s(&first) < first.server.expires_s);
    }
}
