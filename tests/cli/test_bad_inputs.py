"""A table of requests that cannot be carried out: each is one line that names what was seen, and exit code 2."""

import shlex
import subprocess
import sys

import pytest

from prunery.engine.rivals import RIVALS
from prunery.spec import STEPS

TRAIN = "train convnet --steps 1 --runs {runs}"
PRUNE = "prune {trained}/{pack}/packed.safetensors --out {runs}.safetensors"
LOTTERY = "lottery lenet_300_100 --set data.name=digits --steps 200 --runs {runs}"
PRETRAINED = "train mobilenet_v2 --data folder:{shelf}/sizes --resize 32 --set model.weights=pretrained --runs {runs}"

# words of the command | what the line must contain
COMMANDS = [
    # what cannot be parsed
    ("trian", "'trian'", "train"),
    ("run", "RECIPE"),
    ("train convnet --learning-rate 1", "--learning-rate"),
    ("train convnet --lrr 1", "--lrr", "--lr"),
    ("train convnet --lr", "--lr"),
    ("show conv6 extra", "extra"),
    ("show conv6 --batch many", '"many"', "a whole number"),
    (TRAIN + " --threads two", '"two"', "a whole number"),
    # lotteries
    ("lottery", "NETWORK"),
    ("lottery lenet_30_100", '"lenet_30_100"', "did you mean lenet_300_100?"),
    ("lottery resnet21", '"resnet21"', "did you mean resnet20?"),
    ("lottery {shelf}/none.toml", "does not exist", "expected a TOML file"),
    ("lottery {shelf}/good.toml", "good.toml", '"step"', "did you mean steps?"),
    ("demo --out x.prunery --runs {runs}", "--out = x.prunery", "x.html"),
    (LOTTERY + " --figure 2", '--figure = "2"', "1, 3, 4, 5, 6, 7, 8, stability, all"),
    (LOTTERY + " --seeds 0", "--seeds = 0", "1 or more"),
    (LOTTERY + " --levels few", '"few"', "a whole number"),
    (LOTTERY + " --levels -1", "--levels = -1", "0 or more"),
    (LOTTERY + " --steps 0", "--steps = 0", "1 or more"),
    (LOTTERY + " --threads -1", "--threads = -1", "0 or more"),
    (LOTTERY + " --set lrr=1", '"lrr"', "did you mean lr?"),
    (LOTTERY + " --set step.lr=1", "step.lr=1", "KEY=VALUE"),
    (LOTTERY + " --set data.name=mnits", '"mnits"', "did you mean mnist?"),
    (LOTTERY + " --set 'arms=[\"ticket\",\"finetuned\"]'", "the learning rate never drops", "leave it out"),
    (LOTTERY + " --set source_lr=0.1", "go together", "set both"),
    (LOTTERY + " --set 'rate_layers=[\"fc9=0.1\"]'", '"fc9"', "choose one of fc1"),
    ("score w=1e5,f=1e7,p_s=0.5,p_u=0.6", "more than all weights", "at most 1"),
    ("search {shelf}/good.toml", '"step"', "a key of the search"),
    (LOTTERY + " --set data.validation=0", "data.validation = 0", "1 or more"),
    (LOTTERY + " --set precision=bfloat16", 'lottery.precision = "bfloat16"', "expected float32 for lenet_300_100"),
    (LOTTERY + " --set model.weights=a.pth", "model.weights", "leave it out"),
    (LOTTERY + " --set 'arms=[\"reinit\"]'", "lottery.arms", "ticket among them"),
    (LOTTERY + " --set 'arms=[\"ticket\",\"lucky\"]'", '"lucky"', "choose one of ticket"),
    (LOTTERY + " --set rewind=150", "lottery.rewind = 150", "a multiple of"),
    (LOTTERY + " --set rewind=500", "lottery.rewind = 500", "below steps = 200"),
    (LOTTERY + " --figure 1 --levels 0", "levels = 0", "--levels 1 or more"),
    (LOTTERY + " --figure 3 --levels 2", "--figure 3 shows curves of 2 levels or more", "curve_levels=[0, 3, 7]"),
    ("lottery conv2 --figure 3 --set 'curve_levels=[0,3,7]' --runs {runs}", "curve_steps = 1 ", "curve_steps=20000"),
    ("lottery resnet20 --set every=300 --runs {runs}", "lottery.marks = [10000, 20000, 30000]", "lottery.every = 300"),
    (LOTTERY + " --set rate_fc=1", "lottery.rate_fc = 1", "below 1"),
    # many runs
    ("runs --runs {shelf}/none", "none is no folder", "expected the folder of runs"),
    ("runs --runs {trained} --where 'acuracy > 0.9'", '"acuracy" is no column', "accuracy, "),
    ("runs --runs {trained} --where 'accuracy >'", "is no expression", "accuracy > 0.9 and density < 0.1"),
    ("runs --runs {trained} --where 'kind > 1'", "does not fit", "compare numbers with numbers"),
    ("runs --runs {trained} --sort nothing", '"nothing" is no column', "columns: "),
    ("runs --runs {trained} --columns name,nothing", '"nothing" is no column', "columns: all, "),
    ("runs --runs {trained} --limit -1", "--limit = -1", "0 or more"),
    ("runs --runs {trained} --csv {shelf}/none/a.csv", "there is no folder", "make it"),
    ("gc --runs {shelf}/none", "none is no folder", "--runs"),
    ("gc --runs {trained} --age soon", '--age = "soon"', "such as 12h"),
    ("gc --runs {trained} --forget nobody --dry-run", "--forget = nobody", "expected one of"),
    ("sweep {shelf}/none.toml", "does not exist", "expected a TOML file"),
    ("sweep {shelf}/good.toml", "good.toml", '"step" is unknown', "recipe"),
    ("sweep {shelf}/sweep.toml --runs ftp://host/runs", '"ftp://host/runs" is no store', "s3://BUCKET/..."),
    ("sweep {shelf}/sweep.toml --runs s3:/bucket/runs", '"s3:/bucket/runs" is no store', "s3://BUCKET/..."),
    ("sweep {shelf}/sweep.toml --runs file://{shelf}/file --here {runs}", "{shelf}/file", "leave to read and write"),
    ("sweep {shelf}/sweep.toml --runs file://{tmp}/s --here {shelf}/file", "{shelf}/file is a file", "a folder"),
    ("sweep {shelf}/sweep.toml --runs file://{tmp}/s --here s3://bucket", "--here = ", "a folder of this machine"),
    ("sweep {shelf}/sweep.toml --runs {runs} --here {tmp}/here", "--here = ", "goes with an address"),
    ("run {shelf}/good.toml --runs s3://bucket/runs", "is an address, which only prunery sweep", "expected a folder"),
    ("runs --runs {trained} --experiment e", '--experiment = "e"', "goes with --mlflow"),
    ("sweep {shelf}/sweep.toml --runs {runs} --on spark", '--on = "spark"', "expected local, ray"),
    ("sweep {shelf}/sweep.toml --runs {runs} --workers 0", "--workers = 0", "1 or more"),
    ("sweep {shelf}/sweep.toml --runs {runs} --retries -1", "--retries = -1", "0 or more"),
    ("sweep {shelf}/sweep.toml --runs {runs} --set train.lrr=1", "lrr", "did you mean lr?"),
    ("init --out {shelf}/good.toml", "good.toml is there already", "--force"),
    ("init --data nowhere --out {shelf}/new.toml", '"nowhere"', "digits"),
    ("init --data {shelf}/no_classes --out {shelf}/new.toml", "0 sub-folders", "one per class"),
    ("init --model lenet --out {shelf}/new.toml", '"lenet"', "did you mean lenet5?"),
    ("init --model {shelf}/own.py:text --out {shelf}/new.toml", "returned str", "torch.nn.Module"),
    ("init --weights {shelf}/none.pth --out {shelf}/new.toml", "none.pth", "is no file", "state_dict"),
    ("init --resize -1 --out {shelf}/new.toml", "--resize = -1", "0 or more"),
    ("explain {shelf}/none.pt", "no file and no run"),
    ("explain {shelf}/no_classes", "is a folder", "expected a file"),
    ("explain {shelf}/stranger.safetensors", "of no kind that is known here", "whole"),
    ("explain {shelf}/torn.safetensors", "torn.safetensors", "whole"),
    ("explain {shelf}/torn.pth", "torn.pth", "is damaged"),
    ("explain {shelf}/torn.prunery", "torn.prunery"),
    # names
    ("train lenet", '"lenet"', "did you mean lenet5?"),
    ("train resnet2O", '"resnet2O"', "resnet20"),
    ("show resnet9", '"resnet9"', "did you mean resnet"),
    ("train torchvision:resnet17", "torchvision:resnet17", "did you mean", "resnet18"),
    ("train timm:resnet18000", "timm:resnet18000", "did you mean"),
    ("train convnet --data cifar11", '"cifar11"', "did you mean cifar10?"),
    ("data mnits", '"mnits"', "did you mean mnist?"),
    (TRAIN + " --optimizer adamm", 'train.optimizer = "adamm"', "did you mean adam?"),
    (TRAIN + " --schedule cosin", 'train.schedule = "cosin"', "did you mean cosine?"),
    (TRAIN + " --scaling chanel", 'data.scaling = "chanel"', "did you mean channel?"),
    (TRAIN + " --precision half", 'train.precision = "half"', "bfloat16"),
    # pruning
    ("prune {shelf}/net.pt", "net.pt is a PyTorch file", "--model FILE.py:NAME"),
    ("prune {shelf}/net.pt --model convnet", "does not fit", "the images are digits, 1x8x8", "--data names others"),
    ("run {shelf}/no_classes", "no_classes cannot be read: Is a directory", "expected a TOML file"),
    ("prune {shelf}/nan.safetensors --model convnett", '"convnett"', "did you mean convnet?"),
    ("prune {pack} --runs {trained} --model convnet", "--model convnet", "is none", "a run's name alone"),
    ("pack {shelf}/nan.safetensors --model convnet --out {tmp}/x.prunery", "--model convnet", "--data NAME"),
    ("export {shelf}/nan.safetensors --model convnet --out {tmp}/x.onnx", "--model convnet", "--data NAME"),
    ("prune nowhere.safetensors", "nowhere.safetensors", "no file and no run"),
    ("prune {shelf}/torn.safetensors", "torn.safetensors"),
    (PRUNE + " --density 0", "prune.density = 0", "above 0"),
    (PRUNE + " --density 1.2", "prune.density = 1.2", "at most 1"),
    (PRUNE + " --density 0.5 --exclude nope", "nope", "meets no layer"),
    (PRUNE + " --criterion magnitud", "magnitud", "did you mean magnitude?"),
    (PRUNE + " --criterion distance", "first weights", "prune a run"),
    (PRUNE + " --criterion thinet", "coupled"),
    (PRUNE + " --criterion bn_scale", "no batch normalisation", "exclude"),
    (PRUNE + " --structure rows", "rows", "choose one of"),
    (PRUNE + " --structure 2:4 --density 0.3", "contradicts structure 2:4"),
    (PRUNE + " --structure 2:4 --scope layer", "fixes every count itself"),
    (PRUNE + " --scope table", "prune.table"),
    (PRUNE + " --table conv1=2 --scope table", "expected LAYER=DENSITY"),
    (PRUNE + " --multiple 4", "--multiple = 4", "--shrink"),
    (PRUNE + " --batches 0", "prune.batches = 0", "1 or more"),
    (PRUNE + " --out {shelf}/nowhere/p.safetensors", "nowhere"),
    ("sensitivity {trained}/{pack}/packed.safetensors --densities 0.5,2", "--densities", "at most 1"),
    ("sensitivity {trained}/{pack}/packed.safetensors --densities half", "half", "0.5,0.2"),
    ("sensitivity {trained}/{pack}/packed.safetensors --images 0", "--images = 0", "1 or more"),
    ("compare {shelf}/good.toml", "retrain", "label"),
    ("compare {shelf}/compare.toml --methods hann", "hann", "did you mean han?"),
    ("compare {shelf}/compare.toml --densities 1", "density 1", "below 1"),
    ("compare {shelf}/compare.toml --seeds 2 --set seed=3", '"seed=3" together with --seeds = 2', "leave the setting"),
    ("compare {shelf}/compare.toml --seeds 0", "--seeds = 0", "1 or more"),
    ("prune {trained}/{pack}/packed.safetensors --exclude kind:deep", "a kind of layer", "depthwise"),
    ("prune {trained}/{pack}/packed.safetensors --exclude kind:squeeze", "kind:squeeze", "meets no layer here"),
    # freezing
    (TRAIN + " --freeze fc9", 'train.freeze: "fc9" meets no layer', "conv1"),
    (TRAIN + " --freeze '*'", "leaves no weight to train"),
    (TRAIN + " --freeze-blocks 99", "train.freeze_blocks = 99", "expected at most"),
    (TRAIN + " --freeze conv1 --unfreeze conv1", '"conv1" is not allowed', "EPOCH=LAYER"),
    (TRAIN + " --unfreeze 1=conv1", "train.unfreeze", "train.freeze"),
    (TRAIN + " --unfreeze-every 1", "train.unfreeze_every = 1", "train.freeze_blocks is 0"),
    (TRAIN + " --freeze conv1 --sparse set", 'train.sparse = "set"', "train.freeze"),
    # profiles
    ("profile", "NETWORK"),
    ("profile resnet21", '"resnet21"', "did you mean resnet20?"),
    ("profile lenet5 --repeats 0", "--repeats = 0", "1 to 10000"),
    ("profile lenet5 --batch 0", "--batch = 0", "1 to 10000"),
    ("profile lenet5 --threads 0", "--threads = 0", "1 to 10000"),
    ("profile lenet5 --input 28,28", '--input = "28,28"', "channels,height,width"),
    ("profile lenet5 --figure a.pdf", "--figure = a.pdf", ".png or .svg"),
    ("profile lenet5 --figure {tmp}/none/a.png", "{tmp}/none"),
    ("profile {shelf}/good.safetensors --input 3,8,8", "cannot take inputs of 3x8x8", "--input"),
    ("profile {shelf}/good.safetensors --input 1,20000,20000", "--batch = 1 is too large"),
    ("profile {shelf}/torn.safetensors", "torn.safetensors"),
    ("profile {shelf}/net.prunery --input 1,8,8", "leave out --input"),
    ("profile {shelf}/net.prunery --threads 2", "--threads = 2", "leave it out"),
    ("profile {shelf}/net.prunery --batch 5", "--batch = 5", "images at a time"),
    ("profile {shelf}/torn.prunery", "torn.prunery"),
    ("profile {shelf}/net.pt", "net.pt is a PyTorch file"),
    # times and pictures
    ("time nobody --runs {trained}", '"nobody" is not in', "newest there"),
    ("time --batch 0", "--batch = 0", "1 to 10000"),
    ("time --threads 0", "--threads = 0", "expected 1 to"),
    ("time --turns many", '"many"', "a whole number"),
    ("time --runs {shelf}/none", "none is no folder that can be written", "--runs"),
    ("time --runs {tmp}", "no step of {tmp} can be timed", "tells its accuracy"),
    ("time {pack} --runs {trained} --threads 1000", "--threads = 1000", "expected 1 to"),
    ("report --runs {trained} --pictures --out {tmp}", "{tmp} is a folder"),
    # packed files
    ("pack nothing.safetensors", '"nothing.safetensors" is no file and no run'),
    ("pack {shelf}/stranger.safetensors", "stranger.safetensors"),
    ("pack {shelf}/good.safetensors --int8", "--int8 needs images", "--data"),
    ("pack {shelf}/good.safetensors --int8 --data digits --images 0", "--images = 0", "1 or more"),
    ("pack {shelf}/good.safetensors --values f8", '--values = "f8"', "f32, f16"),
    ("pack {shelf}/good.safetensors --out {tmp}/none/a.prunery", "none/a.prunery cannot be written"),
    ("pack {shelf}/good.safetensors --data mnist --out {tmp}/a.prunery", "mnist"),
    ("bench nothing.prunery", "nothing.prunery cannot be read"),
    ("bench {shelf}/torn.prunery", "torn.prunery"),
    ("bench {shelf}/empty.prunery", "empty.prunery"),
    ("export nothing.safetensors", '"nothing.safetensors" is no file and no run'),
    ("export {shelf}/good.safetensors --to onx", '--to = "onx" is unknown', "onnx, openvino"),
    ("export {shelf}/good.safetensors --calibrate", "--calibrate needs images", "--data NAME"),
    ("export {shelf}/good.safetensors --calibrate --data digits --to openvino", "for ONNX Runtime", "--to onnx"),
    ("export {shelf}/good.safetensors --data digits --images 0", "--images = 0", "1 or more"),
    ("export {shelf}/net.prunery", "net.prunery is a packed network"),
    ("bench {shelf}/good.safetensors", "good.safetensors is a checkpoint", "prunery pack"),
    ("bench {shelf}/net.pt", "net.pt is a PyTorch file", "prunery.pack"),
    ("bench {shelf}", "{shelf} is a folder", "a packed file"),
    ("bench {shelf}/net.prunery --threads 1000", "threads = 1000", "a whole number from 1 to"),
    ("bench {shelf}/net.prunery --batch 100000000000", "--batch = 100000000000", "too large"),
    ("bench {shelf}/net.prunery --against torch,onnxx", '--against = "onnxx"', "did you mean onnxruntime?"),
    ("bench " + "x" * 300, "cannot be read: File name too long"),
    ("pack {shelf}/net.prunery", "net.prunery is a packed network", "prunery bench"),
    ("pack {shelf}/net.pt", "net.pt is a PyTorch file", "--model FILE.py:NAME"),
    ("pack " + "x" * 300, "is no file and no run"),
    ("prune {shelf}/net.prunery", "net.prunery is a packed network", "prunery bench"),
    ("show {shelf}/net.prunery", "net.prunery is a packed network", "prunery.runtime.load"),
    ("show {shelf}/net.pt", "net.pt is a PyTorch file", "--set model.weights={shelf}/net.pt"),
    ("show " + "x" * 300, "is unknown; choose one of"),
    # names of files and folders to write, which are looked at first
    ("pack nothing.safetensors --out .", ". is a folder; expected a file's name, such as network.prunery"),
    ("pack nothing.safetensors --out {tmp}", "{tmp} is a folder", "{tmp}/network.prunery"),
    ("pack nothing.safetensors --out ''", "is a folder"),
    ("pack nothing.safetensors --out " + "x" * 300, "expected at most 255"),
    ("pack {shelf}/good.safetensors --out {shelf}/good.safetensors", "is the checkpoint itself", "another name"),
    ("prune nothing.safetensors --out {tmp}", "{tmp} is a folder", "{tmp}/pruned.safetensors"),
    ("prune nothing.safetensors --out {tmp}/none/a", "there is no folder {tmp}/none", "make it"),
    ("sensitivity nothing.safetensors --figure {shelf}/file", "{shelf}/file is a file", "a folder"),
    ("report --runs {trained} --out {tmp}", "{tmp} is a folder", "{tmp}/report.html"),
    ("report --runs {trained} --figures {shelf}/file --out {tmp}/a.html", "{shelf}/file is a file", "a folder"),
    ("demo --out {tmp}", "{tmp} is a folder", "{tmp}/demo.html"),
    ("compare {shelf}/compare.toml --runs {runs} --out {shelf}/file", "{shelf}/file is a file", "a folder"),
    (LOTTERY + " --out {shelf}/file/below", "{shelf}/file is a file", "a folder"),
    (TRAIN.replace("{runs}", "x" * 300), "too long for a file's name"),
    ("bench {shelf}/net.prunery --against onnx", '"onnx"', "onnxruntime"),
    ("bench {shelf}/net.prunery --batch 0", "--batch = 0", "1 or more"),
    ("bench {shelf}/net.prunery --network {shelf}/teacher.safetensors", "teacher.safetensors"),
    # numbers
    (TRAIN + " --lr -0.1", "train.lr = -0.1", "above 0"),
    (TRAIN + " --lr 0", "train.lr = 0", "above 0"),
    (TRAIN + " --lr nan", "train.lr = nan", "a number"),
    (TRAIN + " --lr inf", "train.lr = inf", "a number"),
    (TRAIN + " --lr fast", 'train.lr = "fast"', "a number"),
    (TRAIN + " --batch 0", "train.batch = 0", "1 or more"),
    (TRAIN + " --batch 2.5", "train.batch = 2.5", "a whole number"),
    (TRAIN + " --epochs -1", "train.epochs = -1", "0 or above"),
    (TRAIN + " --momentum 1", "train.momentum = 1", "below 1"),
    (TRAIN + " --label-smoothing 1.5", "train.label_smoothing = 1.5", "below 1"),
    (TRAIN + " --seed -1", "seed = -1", "0 or more"),
    (TRAIN + " --seed 99999999999999999999", "seed = 99999999999999999999", "2^63"),
    (TRAIN + " --schedule multistep", "train.milestones", "[80, 120]"),
    (TRAIN + " --milestones 5,0", "train.milestones[1] = 0", "above 0"),
    (TRAIN + " --keep best --validation 0", 'train.keep = "best"', "data.validation is 0"),
    (TRAIN + " --validation 9999", "data.validation = 9999", "1438"),
    (TRAIN + " --crop 8", "data.crop = 8", "8x8"),
    (TRAIN + " --threads -1", "--threads = -1", "0 or more"),
    (TRAIN + " --checkpoint-seconds nan", "--checkpoint-seconds = nan", "0 or more"),
    (TRAIN + " --device cuda:77", '--device = "cuda:77"', "cpu"),
    (TRAIN + " --device gpu", '--device = "gpu"', "cpu"),
    (TRAIN + " --device meta", '--device = "meta"', "cpu"),
    ("show conv6 --batch 0", "--batch = 0", "1 or more"),
    ("show conv6 --input 3,32", '"3,32"', "3,32,32"),
    ("show conv6 --input 3,32,²", '"3,32,²"', "3,32,32"),
    ("show conv6 --classes -1", "model.classes = -1", "0 or more"),
    # --set
    (TRAIN + " --set train.lr", '"train.lr"', "KEY=VALUE"),
    (TRAIN + " --set =1", '"=1"', "KEY=VALUE"),
    (TRAIN + " --set a.b.c.d=1", '"a.b.c.d=1"', "KEY=VALUE"),
    (TRAIN + " --set lr=1", '"lr"', "seed"),
    (TRAIN + " --set trian.lr=1", '"trian"', "did you mean train?"),
    (TRAIN + " --set train.lrr=1", '"lrr"', "did you mean lr?"),
    (TRAIN + " --set train.lr.x=1", '"lr"', "data"),
    (TRAIN + " --set data.name.x=1", "data", "KEY=VALUE"),
    (TRAIN + " --set model.initt=x", '"initt"', "did you mean init?"),
    (TRAIN + " --set seed=one", 'seed = "one"', "a whole number"),
    # what does not fit together
    ("train lenet5", "lenet5", "1x8x8"),
    (TRAIN + " --set model.input=[3,32,32]", "model.input = (3, 32, 32)", "(1, 8, 8)"),
    (TRAIN + " --set model.input=[1,80000,80000]", "80000", "is too large; expected at most"),
    (TRAIN + " --set model.input=[8,8]", "model.input = [8, 8]", "[channels, height, width]"),
    (TRAIN + " --set model.classes=3", "model.classes = 3", "10"),
    (TRAIN + " --scaling imagenet", 'data.scaling = "imagenet"', "1 channel"),
    ("show good.toml", "good.toml"),
    # data
    ("data folder:{shelf}/nowhere", "nowhere", "is not a folder"),
    ("data folder:{shelf}/no_classes", "no_classes", "0 sub-folders"),
    ("data folder:{shelf}/one", "{shelf}/one", "1 sub-folders"),
    ("data folder:{shelf}/holes", "holes/bee", "no images"),
    ("data folder:{shelf}/bad", "bee/1.png", "repair or remove"),
    ("data folder:{shelf}/sizes", "9x7", "data.resize"),
    ("data mnist --data-dir {shelf}/half", "train-images-idx3-ubyte", "truncated"),
    ("data cifar10 --data-dir {shelf}/torn", "data_batch_1", "damaged"),
    ("data cifar10 --data-dir {shelf}/part", "data_batch_2", "missing"),
    ("data mnist --data-dir {tmp}", "mnist", "{tmp}/MNIST/raw", "no route to host"),
    ("data hf:nobody/nothing", "hf:nobody/nothing"),
    (TRAIN + " --data folder:{shelf}/nowhere", "nowhere", "is not a folder"),
    # networks of one's own
    ("train {shelf}/none.py:net", "none.py", "does not exist"),
    ("train {shelf}/own.py", "own.py", "own.py:text"),
    ("train {shelf}/syntax.py:net", "syntax.py, line 1", "SyntaxError"),
    ("train {shelf}/own.py:nett", '"nett"', "text"),
    ("train {shelf}/own.py:text", "own.py:text", "str"),
    ("train {shelf}/own.py:breaks", "own.py, line 5", "ZeroDivisionError"),
    ("train {shelf}/own.py:narrow --runs {runs}", "[2, 3]", "[2, 10]"),
    ("train {shelf}/own.py:misfit --runs {runs}", "own.py:misfit", "1x8x8"),
    # files of weights
    (TRAIN + " --set model.weights={shelf}/none.pth", "none.pth", "does not exist"),
    (TRAIN + " --set model.weights={shelf}/torn.safetensors", "torn.safetensors", "not a whole safetensors file"),
    (TRAIN + " --set model.weights={shelf}/torn.pth", "torn.pth", "not a whole PyTorch file"),
    (TRAIN + " --set model.weights={shelf}/other.safetensors", "other.safetensors does not fit", "0.weight"),
    (TRAIN + " --set model.weights={shelf}/nan.safetensors", "nan.safetensors", "NaN in fc1.weight"),
    (TRAIN + " --set model.weights={shelf}/torn.pth --set model.weights_sha256=a1", "not a1", "torn.pth has SHA-256"),
    (TRAIN + " --set model.weights=pretrained", '"convnet"', "no published weights"),
    (TRAIN + " --teacher nobody", 'train.teacher = "nobody"', "{runs}"),
    (TRAIN + " --teacher {shelf}/torn.safetensors", "torn.safetensors", "not a whole safetensors file"),
    (TRAIN + " --teacher {shelf}/nameless.safetensors", "nameless.safetensors", "which network"),
    (TRAIN + " --teacher {shelf}/other.safetensors", "other.safetensors does not fit", "missing"),
    (TRAIN + " --teacher {shelf}/teacher.safetensors", "teacher.safetensors does not fit", "1x28x28"),
    ("show {shelf}/stranger.safetensors", "stranger.safetensors", "not a whole safetensors file"),
    ("show {shelf}/nameless.safetensors", "nameless.safetensors", "which network"),
    ("show train-000000000000 --runs {runs}", "train-000000000000", "{runs}"),
    # folders
    ("train convnet --steps 1 --runs {shelf}/file", "{shelf}/file is a file", "a folder"),
    ("train convnet --steps 1 --runs {shelf}/file/below", "{shelf}/file is a file", "a folder"),
    ("train convnet --steps 1 --runs /proc/prunery", "/proc/prunery"),
    (TRAIN + " --tensorboard {shelf}/file", "{shelf}/file is a file", "a folder"),
    # recipes as files
    ("run {shelf}/none.toml", "none.toml", "does not exist"),
    ("run {shelf}", "{shelf}", "a TOML file"),
    ("run {shelf}/syntax.toml", "syntax.toml", "line 1"),
    ("run {shelf}/latin1.toml", "latin1.toml", "cannot be read"),
    ("run {shelf}/deep.toml", "deep.toml", "nested"),
    ("run {shelf}/empty.toml", "empty.toml", "no steps"),
    # reports and results
    ("report --runs {tmp}", "{tmp}", "prunery run"),
    ("report --runs {tmp} --lottery {shelf}", "levels.csv", "prunery lottery wrote"),
    ("report --runs {tmp} --lottery {shelf} --figures {tmp}/figures", "no finished step", "prunery run"),
    ("report nobody --runs {trained}", '"nobody"', "{trained}"),
    ("report t --runs {trained} --out {tmp}/none/page.html", "{tmp}/none/page.html"),
    ("report t --runs {trained} --out {shelf}/file/page.html", "{shelf}/file is a file"),
    ("results {shelf}/none", "{shelf}/none", "is not a folder"),
    ("results {shelf}/no_results", "no_results", "result.json"),
    ("results {shelf}/bad_results", "result.json", "not JSON"),
    ("report --runs {trained} --results {shelf}/bad_results", "result.json", "not JSON"),
    ("report --runs {trained} --lottery {shelf}", "levels.csv", "prunery lottery wrote"),
    ("ui --no-open --runs {runs}", "is no folder of runs", "--runs"),
    ("ui --no-open --runs {trained} --port -1", "--port = -1", "expected 0"),
    ("ui --no-open --runs {trained} --port 65536", "--port = 65536", "to 65535"),
    ("ui --no-open --runs {trained} --port many", '"many"', "a whole number"),
    ("results {shelf}/odd_results", '"extra"', "result.json"),
]  # fmt: skip

# a recipe | what the line must contain
RECIPES = [
    ("[[step]]\nkind = 'train'\n[[step]]\nkind = 'reset'\nto = 'nobody'", "'reset'"[1:-1], "nobody"),
    ("[[step]]\nkind = 'reset'\nto = 'train'\n[[step]]\nkind = 'train'", "to = \"train\"", "put that step first"),
    ("[[step]]\nkind = 'shrink'\nmultiple = 0", "shrink.multiple = 0", "1 or more"),
    ("[[step]]\nkind = 'factorise'\nkeep = 2", "factorise.keep = 2", "at most 1"),
    ("[[step]]\nkind = 'train'\nsteps = 2\nsparse = 'set'", "moves masks", "prune step"),
    ("[[step]]\nkind = 'train'\nsparse = 'rigl'\nkeep = 'best'", "older masks"),
    ("nam = 'x'", '"nam"', "did you mean name?"),
    ("name = 3\n[[step]]\nkind = 'train'", "name = 3", "a text"),
    ("step = 3", "no steps"),
    ("step = []", "no steps"),
    ("step = [3]", "no steps"),
    ("data = 3\n[[step]]\nkind = 'train'", "data = 3", "[data]"),
    ("[model]\nnam = 'x'\n[[step]]\nkind = 'train'", '"nam"', "did you mean name?"),
    ("[data]\nscalin = 'x'\n[[step]]\nkind = 'train'", '"scalin"', "did you mean scaling?"),
    ("[[step]]\nlr = 1", "step 1: kind", "train"),
    ("[[step]]\nkind = 'init'", '"init"', "train"),
    ("[[step]]\nkind = 'prun'", '"prun"', "did you mean prune?"),
    ("[[step]]\nkind = 'train'\n[[step]]\nkind = 'prune'\ndensty = 1", "step 2 (prune)", '"densty"', "density"),
    ("[[step]]\nkind = 'train'\ndata = 3", "step 1 (train)", "data = 3"),
    ("[[step]]\nkind = 'train'\n[step.data]\nflipp = true", "step 1 (train)", '"flipp"', "flip"),
    ("[[step]]\nkind = 'train'\nlr = '0.1'", 'train.lr = "0.1"', "a number"),
    ("[[step]]\nkind = 'train'\nlr = true", "train.lr = true", "a number"),
    ("[[step]]\nkind = 'train'\nnesterov = 1", "train.nesterov = 1", "true or false"),
    ("[[step]]\nkind = 'train'\nmilestones = 80", "train.milestones = 80", "[80]"),
    ("[[step]]\nkind = 'train'\nteacher = 3", "train.teacher = 3", "a text"),
    ("[[step]]\nkind = 'train'\nteacher = 'later'\n[[step]]\nkind = 'train'\nlabel = 'later'", '"later"', "no earlier"),
    ("[[step]]\nkind = 'train'\nlr = 1979-05-27", "train.lr", "a number"),
    ("[[step]]\nkind = 'train'\nlabel = 'a'\n[[step]]\nkind = 'train'\nlabel = 'a'", 'label = "a"', "step 2"),
    ("[[step]]\nkind = 'train'\nlabel = ''", 'label = ""', "letters"),
    ("[[step]]\nkind = 'train'\nlabel = 'a.b'", 'label = "a.b"', "letters"),
    ("[[step]]\nkind = 'train'\nlabel = 'data'", 'label = "data"', "taken"),
    ("[[step]]\nkind = 'train'\nafter = 'tran'", 'after = "tran"', "init"),
    ("[[step]]\nkind = 'prune'\ndensity = 0", "prune.density = 0", "above 0"),
    ("[[step]]\nkind = 'prune'\ndensity = 1.2", "prune.density = 1.2", "at most 1"),
    ("[[step]]\nkind = 'prune'\ndensity = 0.2\n[[step]]\nkind = 'prune'\ndensity = 0.3", "step prune2", "0.3", "0.2"),
    ("[[step]]\nkind = 'prune'\ncriterion = 'magnitud'", '"magnitud"', "did you mean magnitude?"),
    ("[[step]]\nkind = 'prune'\nexclude = ['head*']", '"head*"', "fc1"),
    ("[[step]]\nkind = 'prune'\nexclude = '*'", 'prune.exclude = "*"', '["*"]'),
    ("[[step]]\nkind = 'prune'\nexclude = ['*']", "leaves no layer to prune"),
    ("[[step]]\nkind = 'quantize'\nbits = 9", "quantize.bits = 9", "8"),
    ("[[step]]\nkind = 'quantize'\nbits = true", "quantize.bits = true", "8"),
    ("[[step]]\nkind = 'pack'\nvalues = 'int8'", 'pack.values = "int8"', "float16"),
    ("[[step]]\nkind = 'train'\n[[step]]\nkind = 'pack'\n[step.data]\nname = 'cifar10'", "3x32x32", "1x8x8"),
    ("[model]\nname = '{shelf}/own.py:bare'\n[[step]]\nkind = 'prune'", "no prunable layer"),
    ('[model]\nweights = "\\u0000"\n[[step]]\nkind = "train"', "model.weights", "Unicode"),
]  # fmt: skip


def refused(outcome, texts, where):
    """The whole law of a refusal."""
    assert outcome.code == 2, outcome
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("prunery: ")
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert "this is a bug" not in outcome.err
    for text in texts:
        assert text.format(**where) in lines[0]


@pytest.fixture
def where(shelf, trained, tmp_path):
    pack = next(p.name for p in trained.iterdir() if p.name.startswith("pack"))
    return {"shelf": shelf, "trained": trained, "pack": pack, "tmp": tmp_path, "runs": tmp_path / "runs"}


@pytest.mark.parametrize(("words", "texts"), [(w, t) for w, *t in COMMANDS], ids=[w for w, *_ in COMMANDS])
@pytest.mark.usefixtures("no_network")
def test_a_bad_request_is_one_line(words, texts, prunery, where):
    refused(prunery(*shlex.split(words.format(**where))), texts, where)


@pytest.mark.parametrize(("text", "texts"), [(r, t) for r, *t in RECIPES], ids=[f"{t[0]}" for _, *t in RECIPES])
def test_a_bad_recipe_is_one_line(text, texts, prunery, where, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(text.replace("{shelf}", str(where["shelf"])))
    refused(prunery("run", str(file), "--runs", str(tmp_path / "runs")), texts, where)


def test_an_instruction_set_that_is_not_there(prunery, where, monkeypatch):
    monkeypatch.setenv("PRUNERY_ISA", "mmx")
    refused(prunery("bench", f"{where['shelf']}/net.prunery"), ['PRUNERY_ISA = "mmx" is unknown'], where)


@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "onnx"), ("openvino-int8", "openvino")])
def test_a_run_time_that_is_not_installed(name, extra, prunery, where, monkeypatch):
    monkeypatch.setattr("prunery.engine.export.find_spec", lambda _: None)
    monkeypatch.setattr("sys.prefix", "/usr")
    words = [f"pip install 'prunery[{extra}]'"]
    refused(prunery("bench", f"{where['shelf']}/net.prunery", "--against", name), words, where)


def test_a_run_time_that_fails(prunery, where, monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler\nanywhere")

    monkeypatch.setitem(RIVALS, "compile", broken)
    words = ["compile cannot run this network (no compiler anywhere)", "leave it out of --against"]
    refused(prunery("bench", f"{where['shelf']}/net.prunery", "--against", "compile"), words, where)


def test_the_table_is_long_enough():
    assert len(COMMANDS) + len(RECIPES) >= 45
    assert all(any(f"'{kind}'" in text for text, *_ in RECIPES) for kind in STEPS)


@pytest.mark.usefixtures("no_network")
def test_weights_that_cannot_be_downloaded(prunery, where):
    """One line of ours, after torch's own on what it tried to fetch."""
    done = prunery(*PRETRAINED.format(**where).split())
    *progress, last = done.err.splitlines()
    assert done.code == 2
    assert all(line.startswith("Downloading: ") for line in progress)
    assert last.startswith("prunery: the pretrained weights of torchvision:mobilenet_v2 could not be had")
    assert "--set model.weights=FILE" in last


PROCESSES = [
    ("trian", "Did you mean"),
    ("run {shelf}/none.toml", "does not exist"),
    (TRAIN + " --lr -1", "train.lr = -1"),
    ("show {shelf}/torn.safetensors", "torn.safetensors"),
    ("report --runs {tmp}", "no finished step"),
]


@pytest.mark.parametrize(("words", "text"), PROCESSES)
def test_a_true_process_says_the_same(words, text, where, environment):
    command = [sys.executable, "-m", "prunery", *shlex.split(words.format(**where))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=where["tmp"])
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("prunery: ")
    assert text in done.stderr
