"""Words of folder names and labels in fourteen languages, for `snl.data.words`.

A word is written in lower case, with or without accents; `*` at its end stands for up to six more
letters. Each group ends with the words of Chinese, Japanese and Korean.
"""

from __future__ import annotations

NORMAL_VERDICTS = """
    nodefect nodefects nofault nofaults good goods ok oks okay normal normals acceptable
    accepted accept accepts defectless faultless
    flawless undamaged unbroken nondefective conforming
    gut gute guter gutes guten gutteil gutteile fehlerfrei* fehlerlos* einwandfrei*
    mangelfrei* normale normaler normales normalen unbeschadigt* unbeschaedigt* akzeptiert*
    bon bons bonne bonnes conforme conformes normaux accepte acceptes
    buono buoni buona buone conformi normali accettato accettati
    bueno buenos buena buenas aceptado aceptados aceptada aprobad* correcto correctos
    bom boa boas aprovad* aceito aceitos
    goed goede goedgekeurd* foutloos foutloze normaal
    dobry dobre dobra dobrych prawidlow* zgodny zgodne zgodna normalny normalne
    shodny shodne bezvadn*
    iyi saglam hatasiz kusursuz kabul
    хорош* годный годные годная годен годны норма нормальн* исправн* бездефектн*
    良品 合格 合格品 正常 正常品 良好 完好 양품 정상 정상품 합격 합격품 양호
"""
NORMAL_OTHERS = """
    pass passed passes passing io fine intact perfect clean correct healthy compliant
    bestanden sauber intakt
"""
"""Words for normal that are names of products or places as well."""

DEFECT_VERDICTS = """
    bad bads ng ngs nok notok nogood defect defects defective defectives defected anomaly
    anomalies
    anomalous abnormal abnormals abnormality abnormalities fail failed fails failure failures
    fault
    faults faulty reject rejects rejected rejection rejections scrap scraps scrapped
    nonconforming nonconformity unacceptable imperfect
    defekt* mangel fehler fehlerhaft* fehlerteil fehlerteile fehlteil fehlteile schlecht*
    ausschuss* mangelhaft* anomalie anomalien abnorm* beanstandet*
    defaut* defectueu* mauvais mauvaise mauvaises rebut rebuts anormal anormaux anormale
    difett* scarto scarti scartat* cattivo cattivi anomalia anomali anomale anomalo
    defecto* defectuos* malo malos mala malas rechaz* anomalias
    defeito* defeituos* ruim ruins reprovad* rejeitad* refugo refugos
    fout foute fouten slecht slechte afgekeurd* afkeur
    wadliw* wada wady wad zly zle odrzut* niezgodn* defektow*
    vadny vadne vadna vada vady vad zmetek zmetky zmetku spatny spatne spatna
    hatali hata hatalar kusurlu kusur kusurlar bozuk arizali ariza
    брак бракованн* дефект* плохой плохие плохая негодн* неисправн* ненормальн* аномал*
    不良 不良品 不合格 不合格品 缺陷 次品 废品 廢品 異常 异常 異常品 异常品 欠陥 欠陥品 欠陷 瑕疵
    불량 불량품 결함 비정상 불합격 이상품
"""
DEFECT_STATES = """
    broken cracked damaged dented scratched contaminated deformed corroded rusted torn
    beschadigt* beschaedigt* zerkratzt* gebrochen* gerissen* verkratzt* verbogen* verschmutzt*
    abime abimes casse casses endommag* raye rayes danneggiat* rotto rotti rotos danado danados
    beschadigd* kapot uszkodz* poskozen* kirik bozulmus поврежден* сломанн*
    破损 破損 損傷 损伤 파손 손상
"""
"""States of a part. Alone they are verdicts, but a product's name may contain one."""

DEFECT_KINDS = """
    crack cracks damage damages dent dents hole holes scratch scratches ko nio
    contamination contaminations deformation corrosion rust stain stains missing misplaced
    misaligned
    kratzer riss risse delle dellen bruch beschadigung* beschaedigung* verschmutzung* rost
    rayure rayures fissure fissures graffio graffi crepa crepe grieta grietas aranazo aranazos
    risco riscos trinca trincas kras krassen rysa rysy pekniec* skrabanec* prasklin*
    cizik cizikler catlak catlaklar царапин* трещин*
    划痕 裂纹 裂紋 傷 キズ ひび 割れ 汚れ 打痕 污渍 脏污 찍힘 스크래치 균열 긁힘
"""
"""Kinds of defects, which are names of products or of their parts as well (`hole`, `crack`)."""

NEGATIONS = """
    not no non without un nicht ohne kein keine keinen sans pas aucun aucune senza nessun
    nessuna
    sin ningun ninguna sem nenhum nao zonder geen niet bez nie ne не без нет
    不 无 無 非 没有 沒有 未 비 불 무 미
"""
SUFFIX_NEGATIONS = """
    free frei freie freier freies freien less los none degil yok なし 無し ない 없음 없는 아님
"""
DOUBTS = """
    false pseudo suspect suspected suspicious possible possibly maybe doubtful borderline
    unclear
    positive positives negative negatives verdachtig verdaechtig
"""
"""With one of these, a name says neither normal nor defect, or both."""

UNLABELLED = """
    unlabeled unlabelled unlabel unknown unsorted unclassified mixed private unbekannt
    unsortiert gemischt misc
"""

FILLERS = """
    known confirmed typical collected received returned current recent daily
    part parts piece pieces image images img imgs picture pictures pic pics photo photos sample
    samples example examples item items unit units product products object objects data
    dataset set
    class classes folder dir only all new old my the a an any of for with and or mit con avec
    com z s und et y e visible sichtbare visibles left right
    top bottom front back side sides inner outer large small big little upper lower middle
    center
    centre cam camera view batch lot day week month line machine station shift run series
    version
    vers v rev nr num number crop crops cropped rgb gray grey color colour raw type kind group
    teil teile bild bilder foto fotos stueck stuck muster aufnahme aufnahmen serie charge klasse
    kamera links rechts oben unten
    piece pieces photo echantillon echantillons lot exemple exemples les des de du la le
    pezzo pezzi immagine immagini campione campioni
    pieza piezas imagen imagenes muestra muestras
    peca pecas imagem imagens amostra amostras
    onderdeel onderdelen delen beeld beelden afbeeldingen
    czesc czesci obraz obrazy zdjecie zdjecia
    dil dily obrazek obrazky kus kusy snimky
    parca parcalar resim resimler goruntu goruntuler urun urunler
    деталь детали изображен* фото издел* образц* образец
    品 品類 件 图 图片 图像 圖片 圖像 画像 样本 样品 產品 产品 製品 部品 的 이미지 사진 제품
    부품 샘플
"""

TRAIN = """
    train training trainset trainingset trainingsdaten entrainement addestramento entrenamiento
    treino treinamento обучение 训练 訓練 学習 학습
"""
TEST = "test testing tests testset testdata 测试 測試 テスト 테스트 тест"
VALIDATION = (
    "val valid validation validate validating validierung validacion validacao 验证 検証 검증"
)
SPLIT_FILLERS = """
    data dataset set images image imgs img pictures photos samples split public folder daten
    bilder
    images 集 数据 图片 画像 이미지
"""

MASKS = """
    mask masks gt gts groundtruth maske masken masque masques maschera maschere mascara mascaras
    masker maskers maska maski masky maskeler маска маски 掩码 掩膜 マスク 마스크
"""
ANNOTATIONS = """
    seg segs segmentation segmentations annotation annotations annot annots anno annos label
    labels
    labelme
"""
"""Words for masks that have other meanings as well."""
