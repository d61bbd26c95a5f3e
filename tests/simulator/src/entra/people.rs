//! Who can sign in, and where.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::Directory;
use super::refusal::Refusal;
use super::registration::Registration;
use crate::scenario::{CONSUMERS, PERSONAL_ACCOUNT};
use crate::world::State;

/// Somebody with an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) tenant: Uuid,
    /// The tenant's name.
    pub(crate) organization: String,
    pub(crate) upn: String,
    pub(crate) name: String,
    pub(crate) admin: bool,
}

impl Account {
    /// The object id in its tenant.
    pub(crate) fn object_id(&self) -> Uuid {
        let digest = self.digest("oid");
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_ref()[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// The subject, which is another one for each app.
    pub(crate) fn subject(&self, client: Uuid) -> String {
        URL_SAFE_NO_PAD.encode(self.digest(&client.to_string()))
    }

    fn digest(&self, salt: &str) -> digest::Digest {
        digest::digest(&digest::SHA256, format!("{salt} {} {}", self.tenant, self.upn).as_bytes())
    }

    /// Whether it may sign in to an app in a directory.
    pub(crate) fn fits(&self, directory: Directory, app: &Registration) -> Result<(), Refusal> {
        let personal = self.tenant == CONSUMERS;
        let upn = &self.upn;
        match directory {
            Directory::Tenant(tenant) if tenant == self.tenant => Ok(()),
            Directory::Tenant(tenant) => Err(Refusal::with(
                50020,
                format!(
                    "User account '{upn}' from identity provider 'https://sts.windows.net/{}/' does not exist in tenant '{tenant}' and cannot access the application in that tenant. The account needs to be added as an external user in the tenant first. Sign out and sign in again with a different Azure Active Directory user account.",
                    self.tenant
                ),
            )),
            Directory::Consumers if !personal => Err(Refusal::with(
                50020,
                format!("User account '{upn}' from a work or school directory cannot be used here."),
            )),
            Directory::Organizations | Directory::Common | Directory::Consumers
                if personal && (directory == Directory::Organizations || !app.personal_accounts) =>
            {
                Err(Refusal::with(
                    500_200,
                    format!(
                        "User account '{upn}' is a personal Microsoft account. Personal Microsoft accounts are not supported for this application unless explicitly invited to an organization. Try signing out and signing back in with an organizational account."
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

impl State {
    /// All accounts, the personal one last.
    pub(crate) fn accounts(&self) -> Vec<Account> {
        let of_tenants = self.tenants.iter().flat_map(|(id, tenant)| {
            tenant.people.iter().map(|person| Account {
                tenant: *id,
                organization: tenant.name.clone(),
                upn: person.upn.clone(),
                name: person.name.clone(),
                admin: person.admin,
            })
        });
        of_tenants.chain([personal()]).collect()
    }

    /// The account of this name.
    pub(crate) fn account(&self, upn: &str) -> Option<Account> {
        self.accounts().into_iter().find(|account| account.upn.eq_ignore_ascii_case(upn))
    }
}

/// The personal account.
pub(crate) fn personal() -> Account {
    Account {
        tenant: CONSUMERS,
        organization: "Personal account".to_owned(),
        upn: PERSONAL_ACCOUNT.to_owned(),
        name: "Someone".to_owned(),
        admin: false,
    }
}
