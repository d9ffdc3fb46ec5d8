#include "analysis/site_statistics.h"

#include <algorithm>
#include <tuple>

namespace planloop::analysis {

// Sets latest_ to the site, which is made if there is none.
void SiteStatistics::find(std::uint32_t site, std::uint32_t image) {
    Index place = places_.find(site);
    if (place == kNone) {
        place = static_cast<Index>(sites_.size());
        places_.put(site, place);
        sites_.emplace_back();
        sites_.back().number = site;
        sites_.back().image = image;
    }
    latest_ = place;
}

void SiteStatistics::waited(const Request &request, const WaitEnd &end) {
    at(request.site, request.image).wait.add(end.wait_ns);
}

void SiteStatistics::request_done(const Request &request, const RequestEnd &end) {
    Site &site = at(request.site, request.image);
    if (end.outcome == Outcome::failed) ++site.failed;
    if (end.outcome != Outcome::acquired) return;
    ++site.acquisitions;
    if (request.contended) ++site.contended;
}

void SiteStatistics::fill(std::vector<CallSiteRow> &rows, std::size_t named_call_sites) const {
    std::vector<const Site *> order;
    for (const Site &site : sites_) order.push_back(&site);
    std::sort(order.begin(), order.end(), [](const Site *a, const Site *b) {
        const std::int64_t a_ns = a->wait.total(), b_ns = b->wait.total();
        return std::tie(b_ns, b->acquisitions, a->number) < std::tie(a_ns, a->acquisitions, b->number);
    });
    for (const Site *site : order) {
        CallSiteRow row;
        if (site->number != 0) {
            row.process = model_.source.process(site->image).name;
            if (rows.size() < named_call_sites) {
                row.where = model_.source.call_site(site->number);
                row.site = call_site_words(row.where);
            }
        }
        row.acquisitions = site->acquisitions;
        row.contended = site->contended;
        row.failed = site->failed;
        row.wait = site->wait.distribution();
        row.hold = site->hold.distribution();
        rows.push_back(std::move(row));
    }
}

}  // namespace planloop::analysis
