//! The table of clouds. Nothing else in the crate knows a host name.
//!
//! A cloud is an authority (where tokens come from), a management host (the Activity API), a Graph host, and the
//! audiences of the tokens for the two. Sources: "Office 365 Management Activity API reference" (endpoints by
//! plan), "National cloud deployments" (Graph), "National clouds" (identity platform). GCC uses the worldwide
//! authority. China (21Vianet) has no management host in Microsoft's public documents: there is Graph alone, and with it
//! service health and the Message Center.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::{ServiceTime, Standing};
use crate::content::TenantId;

/// The hosts that belong together. One tenant lives in exactly one cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// `worldwide`, `gcc`, `gcc_high`, `dod`, `china`, or the name of a `[clouds.NAME]` section.
    pub name: String,
    /// The token authority, without a path.
    pub authority: Url,
    /// The Activity API; without it there are no audit records to collect.
    pub management: Option<Management>,
    /// Microsoft Graph's host, without a path.
    pub graph: Url,
    /// The audience of tokens for Graph.
    pub graph_audience: String,
}

/// The Activity API of a cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Management {
    /// Its host, without a path.
    pub host: Url,
    /// The audience (v1 `resource`) of tokens for it; v2 scopes append `/.default`.
    pub audience: String,
}

impl Management {
    /// Whether `url` is on the management host: the same scheme, host and port. Only such an address may ever
    /// see a management token.
    #[must_use]
    pub fn has(&self, url: &Url) -> bool {
        url.origin() == self.host.origin() && url.username().is_empty() && url.password().is_none()
    }
}

/// Which of Entra's token endpoints is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenEndpoint {
    /// `/{tenant}/oauth2/v2.0/token`, with a `scope`.
    #[default]
    V2,
    /// `/{tenant}/oauth2/token`, with a `resource`: the form of Microsoft's 2019 page.
    V1,
}

/// The presets' names, in the order in which errors list them.
pub const PRESETS: [&str; 5] = ["worldwide", "gcc", "gcc_high", "dod", "china"];

impl Cloud {
    /// One of the [`PRESETS`].
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let (authority, management, graph) = match name {
            "worldwide" => ("login.microsoftonline.com", Some("manage.office.com"), "graph.microsoft.com"),
            "gcc" => ("login.microsoftonline.com", Some("manage-gcc.office.com"), "graph.microsoft.com"),
            "gcc_high" => ("login.microsoftonline.us", Some("manage.office365.us"), "graph.microsoft.us"),
            "dod" => ("login.microsoftonline.us", Some("manage.protection.apps.mil"), "dod-graph.microsoft.us"),
            "china" => ("login.partner.microsoftonline.cn", None, "microsoftgraph.chinacloudapi.cn"),
            _ => return None,
        };
        let url = |host: &str| Url::parse(&format!("https://{host}")).ok();
        let management = match management {
            Some(host) => Some(Management { host: url(host)?, audience: format!("https://{host}") }),
            None => None,
        };
        Some(Self {
            name: name.to_owned(),
            authority: url(authority)?,
            management,
            graph: url(graph)?,
            graph_audience: format!("https://{graph}"),
        })
    }

    /// The audience of the token that a tenant of this cloud cannot do without: that of the management host or, where there is
    /// none, of Graph. Consent is asked for it, and given for all that the app registration names.
    #[must_use]
    pub fn audience(&self) -> &str {
        self.management.as_ref().map_or(&self.graph_audience, |management| &management.audience)
    }

    /// The exact address that a token of `tenant` is asked from; also the `aud` of the client assertion.
    #[must_use]
    pub fn token_endpoint(&self, tenant: TenantId, endpoint: TokenEndpoint) -> Url {
        self.at_authority(&match endpoint {
            TokenEndpoint::V2 => format!("/{tenant}/oauth2/v2.0/token"),
            TokenEndpoint::V1 => format!("/{tenant}/oauth2/token"),
        })
    }

    /// Where an administrator of whatever tenant signs in: v2 for work accounts alone; v1, which has no such name, for all.
    #[must_use]
    pub fn authorize(&self, endpoint: TokenEndpoint) -> Url {
        self.at_authority(match endpoint {
            TokenEndpoint::V2 => "/organizations/oauth2/v2.0/authorize",
            TokenEndpoint::V1 => "/common/oauth2/authorize",
        })
    }

    /// Where an administrator of this very tenant consents.
    #[must_use]
    pub fn admin_consent(&self, tenant: TenantId) -> Url {
        self.at_authority(&format!("/{tenant}/v2.0/adminconsent"))
    }

    /// The keys that sign the `id_token`s of whatever tenant ("`OpenID` Connect on the Microsoft identity platform").
    #[must_use]
    pub fn signing_keys(&self) -> Url {
        self.at_authority("/organizations/discovery/v2.0/keys")
    }

    /// Who issues `tenant`'s `id_token`s; of the keys, in which the tenant is left open as `{tenantid}`, if that is what
    /// `tenant` is.
    #[must_use]
    pub fn issuer(&self, tenant: &str) -> String {
        format!("{}/{tenant}/v2.0", self.authority.as_str().trim_end_matches('/'))
    }

    fn at_authority(&self, path: &str) -> Url {
        let mut url = self.authority.clone();
        url.set_path(path);
        url
    }

    /// Whom a federated token must be for, so that this cloud's authority takes it in place of an assertion ("Workload
    /// identity federation"; "National clouds").
    #[must_use]
    pub fn exchange_audience(&self) -> &'static str {
        let host = self.authority.host_str().unwrap_or_default();
        match host.rsplit('.').next() {
            Some("us") => "api://AzureADTokenExchangeUSGov",
            Some("cn") => "api://AzureADTokenExchangeChina",
            _ => "api://AzureADTokenExchange",
        }
    }

    /// Where an authorization code is traded, whosever it is: for all organisations (v2), or for everyone (v1, as
    /// Microsoft's 2019 page has it). Also the `aud` of the client assertion there.
    #[must_use]
    pub fn shared_token_endpoint(&self, endpoint: TokenEndpoint) -> Url {
        let mut url = self.authority.clone();
        url.set_path(match endpoint {
            TokenEndpoint::V2 => "/organizations/oauth2/v2.0/token",
            TokenEndpoint::V1 => "/common/oauth2/token",
        });
        url
    }

    /// The time that this cloud's hosts tell.
    #[must_use]
    pub fn time(&self, time: &ServiceTime) -> Arc<ServiceTime> {
        let standing = if PRESETS.contains(&self.name.as_str()) { Standing::Microsoft } else { Standing::Own };
        let host = self.management.as_ref().map_or(&self.graph, |management| &management.host);
        time.of(&host.origin().ascii_serialization(), standing)
    }
}

impl Cloud {
    /// Whether `url` is on Graph's host: the same scheme, host and port. Only such an address may ever see a token for it.
    #[must_use]
    pub fn is_graph(&self, url: &Url) -> bool {
        url.origin() == self.graph.origin() && url.username().is_empty() && url.password().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_https_hosts_and_asks_for_its_own_audience() {
        for name in PRESETS {
            let cloud = Cloud::preset(name).unwrap();
            for url in [&cloud.authority, &cloud.graph] {
                assert_eq!(url.scheme(), "https", "{name}");
            }
            assert_eq!(format!("{}/", cloud.graph_audience), cloud.graph.as_str(), "{name}");
            match &cloud.management {
                Some(Management { host, audience }) => {
                    assert_eq!((format!("{audience}/").as_str(), audience.as_str()), (host.as_str(), cloud.audience()));
                    assert_eq!(host.scheme(), "https", "{name}");
                }
                None => assert_eq!((name, cloud.audience()), ("china", cloud.graph_audience.as_str())),
            }
        }
        assert_eq!(Cloud::preset("germany"), None);
    }

    #[test]
    fn token_endpoints() {
        let cloud = Cloud::preset("gcc_high").unwrap();
        let tenant = "11111111-2222-3333-4444-555555555555".parse().unwrap();
        assert_eq!(
            cloud.token_endpoint(tenant, TokenEndpoint::V2).as_str(),
            "https://login.microsoftonline.us/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token"
        );
        assert_eq!(
            cloud.token_endpoint(tenant, TokenEndpoint::V1).as_str(),
            "https://login.microsoftonline.us/11111111-2222-3333-4444-555555555555/oauth2/token"
        );
        let shared = |endpoint| cloud.shared_token_endpoint(endpoint).to_string();
        assert_eq!(shared(TokenEndpoint::V2), "https://login.microsoftonline.us/organizations/oauth2/v2.0/token");
        assert_eq!(shared(TokenEndpoint::V1), "https://login.microsoftonline.us/common/oauth2/token");
    }

    #[test]
    fn sign_in_and_consent_are_at_the_authority() {
        let cloud = Cloud::preset("gcc_high").unwrap();
        let tenant = "11111111-2222-3333-4444-555555555555".parse().unwrap();
        for (url, path) in [
            (cloud.authorize(TokenEndpoint::V2), "organizations/oauth2/v2.0/authorize"),
            (cloud.authorize(TokenEndpoint::V1), "common/oauth2/authorize"),
            (cloud.admin_consent(tenant), "11111111-2222-3333-4444-555555555555/v2.0/adminconsent"),
            (cloud.signing_keys(), "organizations/discovery/v2.0/keys"),
        ] {
            assert_eq!(url.as_str(), format!("https://login.microsoftonline.us/{path}"));
        }
        assert_eq!(cloud.issuer("{tenantid}"), "https://login.microsoftonline.us/{tenantid}/v2.0");
    }

    #[test]
    fn federated_tokens_are_for_the_authority_of_their_cloud() {
        for (authority, audience) in [
            ("https://login.microsoftonline.com", "api://AzureADTokenExchange"),
            ("https://login.microsoftonline.us", "api://AzureADTokenExchangeUSGov"),
            ("https://login.partner.microsoftonline.cn", "api://AzureADTokenExchangeChina"),
            ("http://127.0.0.1:1", "api://AzureADTokenExchange"),
        ] {
            let authority = authority.parse().unwrap();
            let cloud = Cloud { authority, ..Cloud::preset("worldwide").unwrap() };
            assert_eq!(cloud.exchange_audience(), audience);
        }
    }

    #[test]
    fn only_the_very_host_is_the_management_host() {
        let cloud = Cloud::preset("worldwide").unwrap();
        let management = cloud.management.unwrap();
        let is = |text: &str| management.has(&Url::parse(text).unwrap());
        assert!(is("https://manage.office.com/api/v1.0/x?y=z"));
        assert!(is("https://MANAGE.office.com:443/api"));
        for foreign in [
            "http://manage.office.com/api",
            "https://manage.office.com.attacker.example/api",
            "https://manage.office.com@attacker.example/api",
            "https://user@manage.office.com/api",
            "https://manage.office.com:8443/api",
            "https://manage-gcc.office.com/api",
        ] {
            assert!(!is(foreign), "{foreign}");
        }
    }
}
