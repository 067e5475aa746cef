// Comments above the TOML say what the defaults of listen and admin come to here.
#include "nearkey/daemon/accounts.h"
#include "nearkey/daemon/command_line.h"
#include "nearkey/daemon/config_secrets.h"
#include "nearkey/upstream/tls.h"
#include "nearkey/upstream/url.h"

#include <ostream>
#include <stdexcept>
#include <variant>

namespace nearkey {

int run_check(const Invocation& invocation, std::ostream& out, std::ostream& err) {
    const Environment& environment = invocation.sources.environment;
    try {
        const Config config = load_config(invocation.sources);
        for (const std::string& warning : secret_warnings(invocation.sources, config))
            err << "nearkey: warning: " << warning << "\n";
        const UpstreamUrl upstream = std::get<UpstreamUrl>(parse_url(config.upstream.url));
        if (upstream.tls) const TlsContext files(config.upstream, upstream.host);
        for (const Listener& listener : listeners(config, environment))
            resolve_accounts(listener);
        for (const ListenAddress& address : listen_addresses(config, environment)) {
            out << "# listens on " << to_text(address) << "\n";
        }
        out << "# admin on " << to_text(admin_address(config, environment)) << "\n\n";
        out << (invocation.comments ? to_commented_toml(config) : to_toml(config));
    } catch (const std::runtime_error& error) {
        err << "nearkey: " << error.what() << "\n";
        return kExitMistaken;
    }
    if (out.flush()) return kExitOk;
    err << "nearkey: the configuration is sound, but it could not be written\n";
    return kExitMistaken;
}

}  // namespace nearkey
