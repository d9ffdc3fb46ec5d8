// While it lives, the thread is not cancelled (pthread_cancel(3)): for steps that would leave something half done. What
// is asked for meanwhile happens at the next cancellation point after it. Threads: about the calling one.
#ifndef PLANLOOP_LOCKCORE_NO_CANCELLATION_H
#define PLANLOOP_LOCKCORE_NO_CANCELLATION_H

#include <pthread.h>

namespace planloop {

class NoCancellation {
  public:
    NoCancellation() noexcept { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
    ~NoCancellation() { pthread_setcancelstate(before_, nullptr); }
    NoCancellation(const NoCancellation &) = delete;
    NoCancellation &operator=(const NoCancellation &) = delete;

    // A call within that may be cancelled, if the thread could be before.
    template <class Call>
    auto except(Call call) {
        pthread_setcancelstate(before_, nullptr);
        auto result = call();
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_);
        return result;
    }

  private:
    int before_ = 0;
};

}  // namespace planloop

#endif
