// Threads, memory, and the C functions that Python calls.
//
// A Network is a file's graph and up to two plans: one image in the lanes, or LANES of them. It never changes once a plan is made, so any number of
// callers may run it at once, each in memory of its own that is kept for the next.

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <mutex>
#include <new>
#include <sstream>

#include "engine.h"

namespace prunery::engine {

namespace {

double now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * t.tv_sec + t.tv_nsec;
}

// ---- memory

constexpr size_t HUGE_PAGE = 1 << 21;

// Zeros at first, so that what nobody writes (lanes beyond the edge) holds numbers.
struct Arena {
    char* bytes;
    size_t size;
    std::unique_ptr<Arena> next;  // of those that are idle

    explicit Arena(size_t wanted) {
        const size_t step = wanted >= HUGE_PAGE / 2 ? HUGE_PAGE : 4096;
        size = (wanted + step - 1) / step * step;
        void* found = nullptr;
        if (posix_memalign(&found, step, size)) throw std::bad_alloc();
        bytes = static_cast<char*>(found);
#ifdef MADV_HUGEPAGE
        if (step == HUGE_PAGE) madvise(bytes, size, MADV_HUGEPAGE);  // advice: where it is not taken, pages are small
#endif
        memset(bytes, 0, size);
    }
    ~Arena() { free(bytes); }
    Arena(const Arena&) = delete;
};

struct Planned {
    std::unique_ptr<Plan> plan;
    std::mutex lock;
    std::unique_ptr<Arena> idle;  // a chain, so that giving one back needs no memory

    std::unique_ptr<Arena> take() {
        {
            std::lock_guard<std::mutex> held(lock);
            if (idle) {
                auto arena = std::move(idle);
                idle = std::move(arena->next);
                return arena;
            }
        }
        return std::make_unique<Arena>(plan->arena);
    }
    void give(std::unique_ptr<Arena> arena) {
        std::lock_guard<std::mutex> held(lock);
        arena->next = std::move(idle);
        idle = std::move(arena);
    }
};

// The memory of some runs at once.
struct Borrowed {
    Planned& from;
    std::vector<std::unique_ptr<Arena>> arenas;
    Borrowed(Planned& p, int runs) : from(p) {
        for (int i = 0; i < runs; ++i) arenas.push_back(p.take());
    }
    ~Borrowed() {
        for (auto& arena : arenas) from.give(std::move(arena));
    }
    Memory memory(int run) const { return {arenas[run]->bytes}; }
};

// Lanes full of images are faster an image as long as what they need stays in the caches: small networks. ResNet-18 at 32 x 32 (14 MB), whose
// steps are predicted to take as long either way, takes a tenth longer an image that way than one by one. Where maps are too small to fill the
// lanes with one image, as in EfficientNet-B0's late blocks, many images are worth more than the nearer caches: three times as fast at 64 x 64
// (8 MB), 1.5 times MobileNetV2 at 96 x 96 (17 MB); not more than memory: EfficientNet-B0 at 224 x 224 (96 MB) would take a seventh longer.
constexpr long LARGE = 6L << 20, VAST = 20L << 20;
constexpr double WORTH = 1.25;

double predicted(const Plan& p) {
    double sum = 0;
    for (const StepPtr& s : p.steps) sum += s->predicted_ns;
    return sum / p.images;
}

struct Network {
    Graph graph;

    Planned& with(bool many) {
        std::lock_guard<std::mutex> held(lock);
        return made(many);
    }

    // Whether LANES images at once are faster, decided when it is first asked. A plan that is made for that and not taken is not kept: it would
    // hold all weights once more.
    bool together_is_faster() {
        std::lock_guard<std::mutex> held(lock);
        if (!decided) together = decide(), decided = true;
        return together;
    }

  private:
    std::mutex lock;
    Planned planned[2];
    bool decided = false, together = false;

    Planned& made(bool many) {
        Planned& p = planned[many];
        if (!p.plan) p.plan = plan(graph, many);
        return p;
    }

    bool decide() {
        std::unique_ptr<Plan>& kept = planned[true].plan;
        std::unique_ptr<Plan> fresh = kept ? nullptr : possible();
        const Plan* many = kept ? kept.get() : fresh.get();
        if (!many || many->arena > VAST) return false;
        if (many->arena > LARGE && predicted(*made(false).plan) <= WORTH * predicted(*many)) return false;
        if (fresh) kept = std::move(fresh);
        return true;
    }

    // None where a kernel refuses pictures of so many images, which lie further apart than those of one.
    std::unique_ptr<Plan> possible() const {
        try {
            return plan(graph, true, VAST);
        } catch (const Refused&) {
            return nullptr;
        }
    }
};

// ---- threads

// Denormal numbers are slow on some processors and mean nothing here. They become zeros inside of a run only.
struct [[maybe_unused]] NoDenormals {
#if defined(__SSE__)
    unsigned before = __builtin_ia32_stmxcsr();
    NoDenormals() { __builtin_ia32_ldmxcsr(before | 0x8040); }
    ~NoDenormals() { __builtin_ia32_ldmxcsr(before); }
#endif
};

inline void relax() {
#if defined(__SSE2__)
    __builtin_ia32_pause();
#endif
}

// Threads that meet after each step. They spin for a little while, since the next step begins at once where every thread has a core, and then let
// others run.
struct Barrier {
    std::atomic<int> waiting{0}, round{0};

    void meet(int parts) {
        if (parts == 1) return;
        const int mine = round.load();
        if (waiting.fetch_add(1) + 1 == parts) {
            waiting = 0;
            round.store(mine + 1);
            return;
        }
        for (int spins = 0; round.load(std::memory_order_acquire) == mine; ++spins) spins < 4000 ? relax() : (void)sched_yield();
    }
};

using Work = void(void*, int) noexcept;  // nobody would catch what a worker throws

// Workers sleep between jobs. A caller that finds them at work for somebody else does its job alone.
struct Pool {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
    Work* work = nullptr;
    void* data = nullptr;
    int threads = 0, wanted = 0, working = 0;
    bool busy = false;
};
Pool pool;

void* member(void*) {
    const NoDenormals off;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (!pool.wanted) pthread_cond_wait(&pool.wake, &pool.lock);
        const int number = pool.wanted--;
        pthread_mutex_unlock(&pool.lock);
        pool.work(pool.data, number);
        pthread_mutex_lock(&pool.lock);
        if (!--pool.working) pthread_cond_signal(&pool.done);
    }
}

bool hire() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { new (&pool) Pool; });  // threads do not survive a fork
    (void)registered;
    pthread_t thread;
    if (pthread_create(&thread, nullptr, member, nullptr)) return false;
    pthread_detach(thread);
    return ++pool.threads;
}

// Workers for a job, at most `wanted`: 0 where somebody else has them.
int engage(int wanted) {
    if (wanted <= 0) return 0;
    pthread_mutex_lock(&pool.lock);
    int got = 0;
    if (!pool.busy) {
        while (pool.threads < wanted && hire()) {
        }
        got = wanted < pool.threads ? wanted : pool.threads;
        pool.busy = got > 0;
    }
    pthread_mutex_unlock(&pool.lock);
    return got;
}

void await() {
    pthread_mutex_lock(&pool.lock);
    while (pool.working) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

void release() {
    pthread_mutex_lock(&pool.lock);
    pool.busy = false;
    pthread_mutex_unlock(&pool.lock);
}

// Workers for one job, at most `wanted`; free for others again at its end, be it an exception.
struct Crew {
    const int workers;
    explicit Crew(int wanted) : workers(engage(wanted)) {}
    ~Crew() {
        if (workers) release();
    }
    Crew(const Crew&) = delete;

    // work(data, part) for part 0 here and 1 .. workers there; all of them take part, and are done at the end.
    void together(Work* work, void* data) const {
        if (workers) {
            pthread_mutex_lock(&pool.lock);
            pool.work = work;
            pool.data = data;
            pool.wanted = pool.working = workers;
            pthread_cond_broadcast(&pool.wake);
            pthread_mutex_unlock(&pool.lock);
        }
        work(data, 0);
        if (workers) await();
    }
};

// ---- a run

struct Job {
    Network* network;
    const char* x;
    char* y;
    long images;
    long in_bytes, out_bytes;  // of an image
    int parts = 1;
    Barrier barrier;
    const Plan* plan = nullptr;
    const Borrowed* borrowed = nullptr;
    std::atomic<long> next{0};
    std::atomic<bool> failed{false};  // a thread lacked memory of its own: it goes on all the same, since others wait for it at the barrier
};

void step(Job& job, const Step& s, const Memory& m, int part, int parts) {
    try {
        s.run(m, part, parts);
    } catch (const std::bad_alloc&) {
        job.failed = true;
    }
}

void copy_in(const Job& job, const Plan& p, const Memory& m, long first, long count) {
    char* to = m.at(p.input);
    memcpy(to, job.x + first * job.in_bytes, count * job.in_bytes);
    memset(to + count * job.in_bytes, 0, (p.images - count) * job.in_bytes);
}

void copy_out(const Job& job, const Plan& p, const Memory& m, long first, long count) {
    memcpy(job.y + first * job.out_bytes, m.at(p.output), count * job.out_bytes);
}

void one_group(Job& job, const Plan& p, const Memory& m, long first) {
    const long count = job.images - first < p.images ? job.images - first : p.images;
    copy_in(job, p, m, first, count);
    for (const StepPtr& s : p.steps) step(job, *s, m, 0, 1);
    copy_out(job, p, m, first, count);
}

// Each thread takes the next group of images.
void by_groups(void* data, int part) noexcept {
    Job& job = *static_cast<Job*>(data);
    const NoDenormals off;
    const Plan& p = *job.plan;
    const Memory m = job.borrowed->memory(part);
    for (long first; (first = job.next.fetch_add(p.images)) < job.images;) one_group(job, p, m, first);
}

// All threads share each image.
void by_steps(void* data, int part) noexcept {
    Job& job = *static_cast<Job*>(data);
    const NoDenormals off;
    const Plan& p = *job.plan;
    const Memory m = job.borrowed->memory(0);
    for (long first = 0; first < job.images; first += p.images) {
        const long count = job.images - first < p.images ? job.images - first : p.images;
        if (part == 0) copy_in(job, p, m, first, count);
        job.barrier.meet(job.parts);
        for (const StepPtr& s : p.steps) {
            step(job, *s, m, part, job.parts);
            job.barrier.meet(job.parts);
        }
        if (part == 0) copy_out(job, p, m, first, count);
        job.barrier.meet(job.parts);
    }
}

void run(Job& job, bool many, int threads) {
    Planned& planned = job.network->with(many);
    job.plan = planned.plan.get();
    const long groups = (job.images + job.plan->images - 1) / job.plan->images;
    const Crew crew(threads - 1);
    job.parts = crew.workers + 1;
    const bool apart = groups >= job.parts;
    const Borrowed memory(planned, apart ? job.parts : 1);  // all of it before anybody begins
    job.borrowed = &memory;
    crew.together(apart ? by_groups : by_steps, &job);
    if (job.failed) throw std::bad_alloc();
}

long bytes_of(const Tensor& t) { return t.numbers() * (t.type == Type::F32 ? 4 : 1); }

void run_all(Network& n, const void* x, void* y, long images, int threads) {
    const long in = bytes_of(n.graph.tensors[n.graph.input]), out = bytes_of(n.graph.tensors[n.graph.output]);
    const auto part = [&](long first, long count, bool many) {
        if (!count) return;
        Job job;
        job.network = &n;
        job.x = static_cast<const char*>(x) + first * in;
        job.y = static_cast<char*>(y) + first * out;
        job.images = count;
        job.in_bytes = in;
        job.out_bytes = out;
        run(job, many, threads);
    };
    // A last group that is more than half full is worth its empty lanes.
    const long rest = images % LANES, full = images - rest + (rest > LANES / 2 ? rest : 0);
    const long many = full && n.together_is_faster() ? full : 0;
    part(0, many, true);
    part(many, images - many, false);
}

// ---- words

void say(const std::exception& e, char* message, int room) {
    const bool memory = dynamic_cast<const std::bad_alloc*>(&e);
    if (room > 0) snprintf(message, room, "%s", memory ? "there is not enough memory for a run; expected fewer threads, or more memory" : e.what());
}

std::string described(Network& n, bool many) {
    const Plan& p = *n.with(many).plan;
    std::ostringstream text;
    text.precision(12);
    for (const StepPtr& s : p.steps)
        text << s->name << '\t' << s->kernel << '\t' << s->density << '\t' << s->multiply_adds << '\t' << s->predicted_ns << '\t' << s->own_bytes
             << '\t' << s->why << '\n';
    return text.str();
}

}  // namespace

}  // namespace prunery::engine

using prunery::engine::Network;
using prunery::engine::now_ns;

// The bytes must stay until close. Null where they are refused, with the reason in `message`.
PRUNERY_EXPORT void* prunery_engine_open(const uint8_t* bytes, uint64_t size, char* message, int room) {
    try {
        auto network = std::make_unique<Network>();
        network->graph = prunery::engine::read(bytes, size);
        return network.release();
    } catch (const std::exception& e) {
        prunery::engine::say(e, message, room);
        return nullptr;
    }
}

PRUNERY_EXPORT void prunery_engine_close(void* network) { delete static_cast<Network*>(network); }

// Channels, rows, columns and type of input and output; lanes; bytes of memory of a run, and of weights as the plan holds them.
PRUNERY_EXPORT int prunery_engine_facts(void* handle, int many, int64_t* facts, char* message, int room) {
    try {
        Network& n = *static_cast<Network*>(handle);
        const prunery::engine::Plan& p = *n.with(many).plan;
        for (int t : {n.graph.input, n.graph.output}) {
            const prunery::engine::Tensor& tensor = n.graph.tensors[t];
            for (int64_t value : {tensor.channels, tensor.rows, tensor.columns, int(tensor.type)}) *facts++ = value;
        }
        *facts++ = p.images;
        *facts++ = p.arena;
        *facts = 0;
        for (const auto& s : p.steps) *facts += s->own_bytes;
        return 0;
    } catch (const std::exception& e) {
        prunery::engine::say(e, message, room);
        return 1;
    }
}

PRUNERY_EXPORT int prunery_engine_run(void* network, const void* x, void* y, int64_t images, int threads, char* message, int room) {
    try {
        prunery::engine::run_all(*static_cast<Network*>(network), x, y, images, threads);
        return 0;
    } catch (const std::exception& e) {
        prunery::engine::say(e, message, room);
        return 1;
    }
}

// A line a step, fields divided by tabs. The length of the text, whatever the room.
PRUNERY_EXPORT int64_t prunery_engine_describe(void* network, int many, char* text, int64_t room) {
    try {
        const std::string all = prunery::engine::described(*static_cast<Network*>(network), many);
        if (room > 0) snprintf(text, room, "%s", all.c_str());
        return all.size();
    } catch (const std::exception&) {
        return -1;
    }
}

// The best nanoseconds of each step over some runs of the whole, on one thread.
PRUNERY_EXPORT int prunery_engine_time(void* network, int many, int repeats, const void* x, double* best) {
    try {
        Network& n = *static_cast<Network*>(network);
        prunery::engine::Planned& planned = n.with(many);
        const prunery::engine::Plan& p = *planned.plan;
        const prunery::engine::Borrowed borrowed(planned, 1);
        const prunery::engine::Memory memory = borrowed.memory(0);
        const prunery::engine::NoDenormals off;
        memcpy(memory.at(p.input), x, prunery::engine::bytes_of(p.input.tensor) * p.images);
        for (int i = 0; i < repeats; ++i)
            for (size_t s = 0; s < p.steps.size(); ++s) {
                const double start = now_ns();
                p.steps[s]->run(memory, 0, 1);
                const double took = now_ns() - start;
                if (i == 0 || took < best[s]) best[s] = took;
            }
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}
