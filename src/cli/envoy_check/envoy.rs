//! The parts of an Envoy configuration, in a bootstrap file, a `config_dump`, or a file of
//! resources.

use std::collections::HashMap;

use super::node::At;

/// A configuration.
pub(super) struct Envoy<'a> {
    /// Its HTTP connection managers.
    pub(super) managers: Vec<Manager<'a>>,
    /// Its clusters by name. A large gateway has thousands.
    clusters: HashMap<&'a str, At<'a>>,
    /// Whether clusters come from elsewhere, too.
    pub(super) has_cds: bool,
}

/// An HTTP connection manager.
pub(super) struct Manager<'a> {
    /// Its listener.
    pub(super) listener: At<'a>,
    /// Its filter chain.
    pub(super) chain: At<'a>,
    /// Its own settings.
    pub(super) settings: At<'a>,
    /// Its HTTP filters.
    pub(super) filters: Vec<At<'a>>,
    /// Its routes; `None` if they come from elsewhere.
    pub(super) routes: Option<At<'a>>,
}

impl<'a> Envoy<'a> {
    /// The parts of a configuration.
    pub(super) fn of(root: &At<'a>) -> Self {
        let mut parts = Parts::default();
        parts.bootstrap(root);
        for config in root.list("configs") {
            if let Some(bootstrap) = config.get("bootstrap") {
                parts.bootstrap(&bootstrap);
            }
            parts.dump(&config);
        }
        for resource in root.list("resources") {
            parts.resource(resource);
        }
        // A dump without the bootstrap has the static ones here; else they are the same twice.
        if parts.listeners.is_empty() {
            parts.listeners = std::mem::take(&mut parts.static_listeners);
        }
        if parts.clusters.is_empty() {
            parts.clusters = std::mem::take(&mut parts.static_clusters);
        }
        let routes = &parts.routes;
        let managers = parts.listeners.iter();
        Self {
            managers: managers
                .flat_map(|listener| managers_of(listener, routes))
                .collect(),
            clusters: by_name(parts.clusters),
            has_cds: parts.has_cds,
        }
    }

    /// The cluster of that name.
    pub(super) fn cluster(&self, name: &str) -> Option<&At<'a>> {
        self.clusters.get(name)
    }

    /// Whether clusters that come from elsewhere are in the file.
    pub(super) fn is_dump(&self) -> bool {
        let mut clusters = self.clusters.values();
        clusters.any(|it| it.path().contains("dynamic_active_clusters"))
    }
}

/// The clusters by name, the first of each.
fn by_name(clusters: Vec<At<'_>>) -> HashMap<&str, At<'_>> {
    let mut named = HashMap::with_capacity(clusters.len());
    for cluster in clusters {
        named.entry(cluster.text_of("name")).or_insert(cluster);
    }
    named
}

/// The parts found while walking through a configuration.
#[derive(Default)]
struct Parts<'a> {
    /// Listeners of the bootstrap, and those that came over LDS.
    listeners: Vec<At<'a>>,
    /// The bootstrap's listeners, as a dump repeats them.
    static_listeners: Vec<At<'a>>,
    /// Clusters of the bootstrap, and those that came over CDS.
    clusters: Vec<At<'a>>,
    /// The bootstrap's clusters, as a dump repeats them.
    static_clusters: Vec<At<'a>>,
    /// Routes that came over RDS.
    routes: Vec<At<'a>>,
    /// Whether clusters come from elsewhere, too.
    has_cds: bool,
}

impl<'a> Parts<'a> {
    /// A bootstrap file.
    fn bootstrap(&mut self, root: &At<'a>) {
        if let Some(resources) = root.get("static_resources") {
            self.listeners.extend(resources.list("listeners"));
            self.clusters.extend(resources.list("clusters"));
        }
        self.has_cds |= root.find(&["dynamic_resources", "cds_config"]).is_some();
    }

    /// A part of a `config_dump`.
    fn dump(&mut self, config: &At<'a>) {
        let inner = |list: &str, names: &[&str]| -> Vec<At<'a>> {
            let items = config.list(list).into_iter();
            items.filter_map(|item| item.find(names)).collect()
        };
        let active = ["active_state", "listener"];
        self.listeners.extend(inner("dynamic_listeners", &active));
        self.static_listeners
            .extend(inner("static_listeners", &["listener"]));
        self.clusters
            .extend(inner("dynamic_active_clusters", &["cluster"]));
        self.static_clusters
            .extend(inner("static_clusters", &["cluster"]));
        self.routes
            .extend(inner("dynamic_route_configs", &["route_config"]));
    }

    /// A resource of its own.
    fn resource(&mut self, resource: At<'a>) {
        // A file of resources never has all of them.
        self.has_cds = true;
        if resource.is_a("Listener") {
            self.listeners.push(resource);
        } else if resource.is_a("Cluster") {
            self.clusters.push(resource);
        } else if resource.is_a("RouteConfiguration") {
            self.routes.push(resource);
        }
    }
}

/// The HTTP connection managers of a listener.
fn managers_of<'a>(listener: &At<'a>, routes: &[At<'a>]) -> Vec<Manager<'a>> {
    let mut managers = Vec::new();
    let mut chains = listener.list("filter_chains");
    chains.extend(listener.get("default_filter_chain"));
    for chain in chains {
        for filter in chain.list("filters") {
            let Some(settings) = filter.get("typed_config") else {
                continue;
            };
            if !settings.is_a("HttpConnectionManager") {
                continue;
            }
            let named = settings.find(&["rds", "route_config_name"]);
            let named = named.and_then(|name| name.text());
            let from_elsewhere = routes
                .iter()
                .find(|routes| Some(routes.text_of("name")) == named);
            managers.push(Manager {
                listener: listener.clone(),
                chain: chain.clone(),
                filters: settings.list("http_filters"),
                routes: settings
                    .get("route_config")
                    .or_else(|| from_elsewhere.cloned()),
                settings,
            });
        }
    }
    managers
}

impl<'a> Manager<'a> {
    /// Where the first filter with that configuration stands among the filters, and its settings.
    pub(super) fn filter(&self, message: &str) -> Option<(usize, At<'a>)> {
        self.filters_of(message).into_iter().next()
    }

    /// All filters with that configuration.
    pub(super) fn filters_of(&self, message: &str) -> Vec<(usize, At<'a>)> {
        let filters = self.filters.iter().enumerate();
        filters
            .filter_map(|(place, filter)| {
                let settings = filter.get("typed_config")?;
                settings.is_a(message).then_some((place, settings))
            })
            .collect()
    }
}

/// The cluster that a gRPC service leads to.
pub(super) fn cluster_of<'a>(service: &At<'a>) -> &'a str {
    let envoy = service.get("envoy_grpc");
    envoy.map_or("", |envoy| envoy.text_of("cluster_name"))
}

/// Whether a gRPC service is meant to be streamgate.
pub(super) fn is_streamgate(service: &At<'_>) -> bool {
    let Some(envoy) = service.get("envoy_grpc") else {
        return false;
    };
    [envoy.text_of("cluster_name"), envoy.text_of("authority")]
        .iter()
        .any(|name| name.contains("streamgate"))
}
