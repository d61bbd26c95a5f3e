//! An invite together with what the configuration says of it today.

use std::sync::Arc;

use url::Url;

use super::address;
use super::desk::{Desk, tell, told};
use super::ending::{Ending, Subject, unavailable};
use crate::cloud::{Cloud, TokenEndpoint};
use crate::config::{App, ConsentFlow, Settings};
use crate::content::TenantId;
use crate::report::Trouble;
use crate::store::{Invite, InviteId, InviteStage};
use crate::token::Applicant;

/// An invite, and who its app is at its cloud.
pub(super) struct Case {
    pub(super) invite: Invite,
    pub(super) settings: Arc<Settings>,
    pub(super) cloud: Arc<Cloud>,
    pub(super) app: Arc<App>,
    pub(super) base: Url,
}

impl Case {
    pub(super) fn redirect_uri(&self) -> Url {
        address::redirect_uri(&self.base, &self.cloud.name)
    }

    pub(super) fn applicant(&self) -> Applicant {
        Applicant {
            cloud: Arc::clone(&self.cloud),
            app: self.app.name.clone(),
            client_id: self.app.client_id.clone(),
            credential: self.app.credential.clone(),
        }
    }

    pub(super) fn flow(&self) -> TokenEndpoint {
        match self.settings.public.flow {
            ConsentFlow::V2 => TokenEndpoint::V2,
            ConsentFlow::V1 => TokenEndpoint::V1,
        }
    }

    pub(super) fn subject(&self, tenant: Option<TenantId>) -> Subject<'_> {
        Subject { tenant, client_id: &self.app.client_id, cloud: &self.cloud }
    }
}

impl Desk {
    /// The case of a link that can be followed.
    pub(super) async fn open(&self, secret: &str) -> Result<Case, Ending> {
        let case = self.case_of(InviteId::of(secret.as_bytes())).await?;
        let outcome = match case.invite.stage {
            InviteStage::Done { .. } => Err(Ending::Used),
            InviteStage::Proving { .. } => Err(Ending::InUse),
            InviteStage::Open if case.invite.expires <= self.with.time.now() => Err(Ending::Expired),
            InviteStage::Open => Ok(()),
        };
        told(&case.invite, outcome)?;
        Ok(case)
    }

    pub(super) async fn case_of(&self, id: InviteId) -> Result<Case, Ending> {
        let invite = self.with.store.invite(id).await.map_err(|error| unavailable(&error))?;
        self.case(invite.ok_or(Ending::NoSuchInvite)?).map_err(|refused| {
            let (invite, ending) = *refused;
            tell(&invite, &ending);
            ending
        })
    }

    pub(super) fn case(&self, invite: Invite) -> Result<Case, Box<(Invite, Ending)>> {
        let settings = self.keeper.settings();
        let (cloud, app) = (settings.clouds.get(&invite.cloud).cloned(), settings.apps.get(&invite.app).cloned());
        match (cloud, app, settings.public.url.clone()) {
            (Some(cloud), Some(app), Some(base)) => Ok(Case { invite, settings, cloud, app, base }),
            (cloud, app, _) => {
                let missing = match (cloud, app) {
                    (None, _) => format!("the cloud `{}`", invite.cloud),
                    (_, None) => format!("the app `{}`", invite.app),
                    _ => "`[public] url`".to_owned(),
                };
                let trouble = Trouble::for_operator(
                    "invite_settings",
                    format!("the invite needs {missing}, which the configuration does not have any more"),
                    "put it back, or send another invite",
                );
                Err(Box::new((invite, Ending::Unavailable(Box::new(trouble)))))
            }
        }
    }
}
