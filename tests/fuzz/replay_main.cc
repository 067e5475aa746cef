// Runs a fuzz target over files and folders of inputs, for compilers without libFuzzer:
// PROGRAM PATH... prints how many inputs it ran. A property that does not hold ends the program.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

bool run_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    if (file.bad() || !file.is_open()) {
        std::cerr << "cannot read " << path << '\n';
        return false;
    }
    std::cerr << path.filename().string() << '\n';  // The last one is the one that failed.
    // On the heap and without slack, as libFuzzer has it.
    const std::vector<uint8_t> bytes(input.begin(), input.end());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    size_t executions = 0;
    for (int i = 1; i < argc; ++i) {
        std::vector<std::filesystem::path> paths{argv[i]};
        if (std::filesystem::is_directory(argv[i])) {
            const std::filesystem::directory_iterator entries(argv[i]);
            paths.assign(begin(entries), end(entries));
        }
        for (const std::filesystem::path& path : paths) {
            if (!run_file(path)) return 1;
            ++executions;
        }
    }
    std::cout << executions << " executions\n";
    return executions > 0 ? 0 : 1;
}
