//! Reaches what somebody else runs: Kafka through its bus, databases through the store.

use super::{External, Outside, kafka};
use crate::runtime::secrets::Secrets;
use crate::store;
use async_trait::async_trait;
use muster_core::base::chain::chain;
use muster_core::model::observed::ExternalSight;
use muster_core::model::streaming::{DatabaseCluster, DatabaseEngine};
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;

/// The daemon's own way.
pub struct Reach {
    secrets: Arc<dyn Secrets>,
}

impl Reach {
    /// With the values of the settings' secrets, read anew at each look.
    pub fn new(secrets: Arc<dyn Secrets>) -> Self {
        Self { secrets }
    }

    fn url(&self, database: &DatabaseCluster) -> Result<SecretString, String> {
        self.secrets.get(&database.url).map_err(|error| chain(&error))
    }

    async fn database(&self, database: &DatabaseCluster) -> Result<ExternalSight, String> {
        let url = self.url(database)?;
        let examined = match store::examine(url.expose_secret()).await {
            Ok(examined) => examined,
            Err(error) if error.is_transient() => return Err(chain(&error)),
            // It answers, and somebody has to mend it.
            Err(error) => return Ok(ExternalSight::Unfit { summary: chain(&error) }),
        };
        let server = &examined.server;
        let problems: Vec<String> = [examined.problem, wrong_engine(database.engine, server)]
            .into_iter()
            .flatten()
            .collect();
        Ok(if !problems.is_empty() {
            ExternalSight::Unfit {
                summary: format!("{server}: {}", problems.join("; ")),
            }
        } else if examined.migrate {
            ExternalSight::Missing {
                what: vec!["tables for results".to_owned()],
                summary: format!("{server} answers, its tables are to be made or brought up to date"),
            }
        } else {
            ExternalSight::Fine {
                summary: format!("{server} answers, its tables are there"),
            }
        })
    }
}

#[async_trait]
impl External for Reach {
    async fn look(&self, outside: &Outside) -> ExternalSight {
        let sight = match outside {
            Outside::Kafka(cluster) => kafka::look(cluster, &*self.secrets).await,
            Outside::Database(database) => self.database(database).await,
        };
        sight.unwrap_or_else(|summary| ExternalSight::Unreachable { summary })
    }

    async fn make(&self, outside: &Outside) -> Result<ExternalSight, String> {
        match outside {
            Outside::Kafka(cluster) => kafka::make(cluster, &*self.secrets).await,
            Outside::Database(database) => {
                let sight = self.database(database).await?;
                // What will not do is left as it is until somebody mends it.
                if !matches!(sight, ExternalSight::Missing { .. }) {
                    return Ok(sight);
                }
                let url = self.url(database)?;
                store::open(url.expose_secret()).await.map_err(|error| chain(&error))?;
                self.database(database).await
            }
        }
    }
}

fn wrong_engine(engine: DatabaseEngine, server: &str) -> Option<String> {
    let (wanted, word) = match engine {
        DatabaseEngine::Mysql => ("MySQL", "mysql"),
        DatabaseEngine::Mariadb => ("MariaDB", "mariadb"),
    };
    (!server.starts_with(wanted)).then(|| format!("its document says `engine: {word}`"))
}
