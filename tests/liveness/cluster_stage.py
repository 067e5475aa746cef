"""The same stage where nearkey is before a cluster; what is right says a Valkey that is none."""

from stage import Stage  # First: it says where the other modules are.

import pools  # noqa: I100
from cluster_world import digest_of
from clusters import Cluster


class ClusterStage(Stage):
    tags = pools.TAGS
    cluster = None

    def _start_upstream(self):
        self.cluster = Cluster(self.directory, 3).start()
        self.nodes = [node.client() for node in self.cluster.nodes]
        return self.cluster.url()

    def _server_path(self):
        return self.cluster.nodes[0].path

    def _digest(self, *, directly):
        return digest_of([self.admin] if directly else self.nodes)

    def _fill(self, client, commands):
        """Through nearkey, which knows where they belong."""
        replies = client.pipeline(commands)
        assert replies == [b"+OK\r\n"] * len(commands), replies

    def close(self):
        try:
            super().close()
        finally:
            if self.cluster is not None:
                self.cluster.stop()
