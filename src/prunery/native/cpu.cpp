// What this processor AND this operating system support. Compiled for the plainest processor, so that it runs anywhere.
//
// The operating system matters: wide registers may exist but not be saved on a context switch, and then using them is an illegal
// instruction. XCR0 says which ones are saved.

#include <initializer_list>
#include <iterator>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Named {
    const char* name;
    bool present;
};

std::string names_of_present(const Named* first, const Named* last) {
    std::string names;
    for (; first != last; ++first)
        if (first->present) names += (names.empty() ? "" : " ") + std::string(first->name);
    return names;
}

}  // namespace

#if defined(__x86_64__)

#include <cpuid.h>

namespace {

struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers r;
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // leaves zeros for a leaf that does not exist
    return r;
}

bool bit(unsigned word, int index) { return (word >> index) & 1; }

// The state components that the operating system saves; the instruction exists only if it says so (OSXSAVE).
unsigned saved_states(bool osxsave) {
    unsigned low = 0, high = 0;
    if (osxsave) __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

// Bit numbers: Intel SDM volume 2, CPUID; volume 1, 13.3 for XCR0.
std::string find_features() {
    const Registers one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1), extended = cpuid(0x80000001, 0);
    const unsigned saved = saved_states(bit(one.ecx, 27));
    const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6, tiles = (saved & 0x60000) == 0x60000;
    const Named all[] = {
        {"avx", ymm && bit(one.ecx, 28)},
        {"f16c", ymm && bit(one.ecx, 29)},
        {"fma", ymm && bit(one.ecx, 12)},
        {"avx2", ymm && bit(seven.ebx, 5)},
        {"bmi", bit(seven.ebx, 3)},
        {"bmi2", bit(seven.ebx, 8)},
        {"lzcnt", bit(extended.ecx, 5)},
        {"avx_vnni", ymm && bit(more.eax, 4)},
        {"avx512f", zmm && bit(seven.ebx, 16)},
        {"avx512dq", zmm && bit(seven.ebx, 17)},
        {"avx512cd", zmm && bit(seven.ebx, 28)},
        {"avx512bw", zmm && bit(seven.ebx, 30)},
        {"avx512vl", zmm && bit(seven.ebx, 31)},
        {"avx512vbmi", zmm && bit(seven.ecx, 1)},
        {"avx512_vbmi2", zmm && bit(seven.ecx, 6)},
        {"avx512_vnni", zmm && bit(seven.ecx, 11)},
        {"avx512_fp16", zmm && bit(seven.edx, 23)},
        {"avx512_bf16", zmm && bit(more.eax, 5)},
        // Linux hands out the tiles only to a process that asks for them (arch_prctl, ARCH_REQ_XCOMP_PERM).
        {"amx_tile", tiles && bit(seven.edx, 24)},
        {"amx_int8", tiles && bit(seven.edx, 25)},
        {"amx_bf16", tiles && bit(seven.edx, 22)},
    };
    return names_of_present(std::begin(all), std::end(all));
}

bool has_all(const std::string& features, std::initializer_list<const char*> wanted) {
    const std::string padded = " " + features + " ";
    for (const char* name : wanted)
        if (padded.find(" " + std::string(name) + " ") == std::string::npos) return false;
    return true;
}

// What the compiler flags of each level in CMakeLists.txt allow it to use; v4 contains v3.
std::string find_levels(const std::string& features) {
    const bool v3 = has_all(features, {"avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt"});
    const bool v4 = v3 && has_all(features, {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"});
    return v4 ? "baseline v3 v4" : v3 ? "baseline v3" : "baseline";
}

}  // namespace

#elif defined(__aarch64__)

#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace {

// Bit numbers: Linux, arch/arm64/include/uapi/asm/hwcap.h; spelled out because old headers lack the newer ones.
#if defined(__linux__)
bool supports(const char*, int hwcap_bit, int hwcap2_bit) {
    return hwcap_bit >= 0 ? (getauxval(AT_HWCAP) >> hwcap_bit) & 1 : (getauxval(AT_HWCAP2) >> hwcap2_bit) & 1;
}
#elif defined(__APPLE__)
bool supports(const char* apple_name, int, int) {
    int value = 0;
    size_t size = sizeof value;
    return apple_name && sysctlbyname(apple_name, &value, &size, nullptr, 0) == 0 && value;
}
#else
bool supports(const char*, int, int) { return false; }
#endif

std::string find_features() {
    const Named all[] = {
        {"neon", true},
        {"fp16", supports("hw.optional.arm.FEAT_FP16", 10, -1)},
        {"dotprod", supports("hw.optional.arm.FEAT_DotProd", 20, -1)},
        {"sve", supports(nullptr, 22, -1)},
        {"sve2", supports(nullptr, -1, 1)},
        {"i8mm", supports("hw.optional.arm.FEAT_I8MM", -1, 13)},
        {"bf16", supports("hw.optional.arm.FEAT_BF16", -1, 14)},
    };
    return names_of_present(std::begin(all), std::end(all));
}

std::string find_levels(const std::string&) { return "neon"; }

}  // namespace

#else

namespace {

std::string find_features() { return names_of_present(nullptr, nullptr); }
std::string find_levels(const std::string&) { return "baseline"; }

}  // namespace

#endif

// Names separated by spaces, as /proc/cpuinfo spells them where it does.
EXPORT const char* prunery_cpu_features() {
    static const std::string features = find_features();
    return features.c_str();
}

// The levels that can run here, slowest first.
EXPORT const char* prunery_cpu_levels() {
    static const std::string levels = find_levels(prunery_cpu_features());
    return levels.c_str();
}
